"""Measure what pruning and calibration cost and gain on the embedded model.

`python -m benchmarks.compress` takes a quarter of an hour on two cores.

Every variant is built by `mobilepack build`, and measured through its program: perplexity on
held-out text, the project's task set, speed. llama.cpp quantises the same model and is measured on
the same token ids. Writes JSON; `docs/compression.md` is made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environments import ensure
from benchmarks.host import describe_host
from benchmarks.peers.llama_cpp import PEERS
from benchmarks.process import run_measured
from mobilepack.commands.answering import answering
from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.pocket import held_out, held_out_rows, run_pocket
from mobilepack.contract.package import open_package
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import train_documents
from mobilepack.pipeline.compression_options import CompressionChoices
from mobilepack.pipeline.plan import Choices

SCHEMA = "mobilepack.benchmarks.compress/1"
RESULT = Path(__file__).parent / "results" / "compress.json"
TEXTS = 300  # held-out; 26,000 tokens
VOCABULARY_DOCUMENTS = 3000
FORMATS = ("BF16", "Q8_0", "Q4_K_M", "Q4_0")


@dataclass(frozen=True, slots=True)
class Variant:
    """One package, or one file of llama.cpp.

    Attributes:
        options: What was added to `mobilepack build`.
        build_cpu_s: CPU seconds of pruning and calibration alone.
        perplexity: On the held-out text.
        tasks: Share of right answers; None where it was not measured.
        prefill_tok_per_s: Prompt of 128 tokens, median.
        decode_tok_per_s: 64 tokens, median.
    """

    options: str
    bytes: int
    parameters: int
    perplexity: float
    build_cpu_s: float = 0.0
    tasks: float | None = None
    prefill_tok_per_s: float | None = None
    decode_tok_per_s: float | None = None


def variants(corpus: Path) -> Iterator[tuple[str, Choices]]:
    """Yield what is built, each as it would be typed."""
    plain = Choices()
    yield "--recipe fp32", replace(plain, linear="fp32")
    yield "", plain
    for method in ("hqq", "awq", "gptq"):
        yield f"--calibrate {method}", _with(plain, calibrate=method)
    eight = replace(plain, embedding="8w")
    yield "--qembedding 8w", eight
    yield "--qembedding 8w --calibrate gptq", _with(eight, calibrate="gptq")
    yield "--prune-vocab corpus.txt", _with(plain, vocabulary=corpus)
    for how in ("wanda:0.5", "wanda:2:4", "layers:4", "layers:3-4", "width:0.25", "width:0.5"):
        yield f"--prune {how}", _with(plain, prune=(how,))
    yield "--prune wanda:0.5 --calibrate gptq", _with(plain, prune=("wanda:0.5",), calibrate="gptq")
    everything = _with(plain, prune=("width:0.25",), calibrate="gptq", vocabulary=corpus)
    yield "--prune width:0.25 --prune-vocab corpus.txt --calibrate gptq", everything


def _with(choices: Choices, **wishes: Any) -> Choices:
    return replace(choices, compression=CompressionChoices(**wishes))


def measure(options: str, choices: Choices, out: Path) -> Variant:
    """Build one variant and measure it."""
    (built,) = build(BuildOptions(out=out, choices=choices, force=True))
    package, manifest = open_package(built.folder), built.manifest
    with answering(package, threads=2, timeout_s=600) as model:
        tasks = run_pocket(model, None, lambda what, share: None)[0].metrics[0].value
        perplexity = held_out(model, TEXTS, lambda what, share: None).metrics[0].value
    timed = bench(built.folder, BenchOptions(prompt_tokens=(128,), gen_tokens=(64,), threads=2))
    prefill, decode = (test.round_tok_per_s.median for test in timed.bench.tests)
    mine = ("prune", "calibrate")
    return Variant(
        options=options,
        bytes=package.program.stat().st_size,
        parameters=manifest.parameters,
        perplexity=perplexity,
        build_cpu_s=sum(stage.cpu_s for stage in manifest.stages if stage.name.startswith(mine)),
        tasks=tasks,
        prefill_tok_per_s=prefill,
        decode_tok_per_s=decode,
    )


def llama_cpp(ids: Path) -> Iterator[Variant]:
    """Yield what llama.cpp makes of the same model on the same ids."""
    peer = PEERS[1]  # without AMX, which no phone has
    python = ensure(peer.environment)
    module = "benchmarks.peers.llama_cpp.perplexity"
    command = [str(python), "-m", module, str(embedded_path()), str(ids), *FORMATS]
    done = run_measured(command, limit_s=1800)
    if done.returncode != 0:
        raise SystemExit(f"llama.cpp: {done.explain_failure()}")
    for line in done.stdout.splitlines():
        found = json.loads(line)
        yield Variant(f"llama.cpp {found['format']}", found["bytes"], 0, found["perplexity"])


def write_corpus(path: Path) -> None:
    """Write text of the training half, chats and all, as a corpus of the vocabulary."""
    with path.open("w", encoding="utf-8") as file:
        for _, document in zip(range(VOCABULARY_DOCUMENTS), train_documents(1), strict=False):
            parts = (document,) if isinstance(document, str) else (m.content for m in document)
            file.writelines(f"{part}\n" for part in parts)


def main() -> None:
    """Measure everything and write the document after every variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--no-peer", action="store_true", help="leave llama.cpp out")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "representative": False,
        "host": asdict(describe_host()),
        "texts": TEXTS,
        "tokens": 0,
        "variants": [],
    }
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="mobilepack-compress-") as name:
        folder = Path(name)
        write_corpus(folder / "corpus.txt")
        for number, (options, choices) in enumerate(variants(folder / "corpus.txt")):
            found = measure(options, choices, folder / "out")
            if number == 0:
                _write_ids(folder / "out", folder / "ids.json", document)
            _add(document, found, arguments.out)
        if not arguments.no_peer:
            for found in llama_cpp(folder / "ids.json"):
                _add(document, found, arguments.out)


def _write_ids(out: Path, path: Path, document: dict[str, Any]) -> None:
    with answering(open_package(out), threads=2, timeout_s=600) as model:
        rows = held_out_rows(model, TEXTS)
    document["tokens"] = sum(len(row) for row in rows)
    path.write_text(json.dumps(rows))


def _add(document: dict[str, Any], found: Variant, out: Path) -> None:
    print(found, file=sys.stderr, flush=True)
    document["variants"].append(asdict(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")


def render(path: Path = RESULT) -> str:
    """Return the Markdown table of a results document."""
    document = json.loads(path.read_text())
    rows = document["variants"]
    ours, theirs = (
        next(row["perplexity"] for row in rows if row["options"].startswith("llama") == peer)
        for peer in (False, True)  # fp32 comes first of ours, bf16 (lossless here) of llama.cpp's
    )
    speed = next(row for row in rows if row["options"] == "")
    lines = [
        "| `mobilepack build` with | file MB | parameters | perplexity ratio | tasks | prefill |"
        " decode | added CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        peer = row["options"].startswith("llama")
        name = row["options"] if peer else f"`{row['options']}`" if row["options"] else "(default)"
        cells = [
            name,
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "",
            f"{row['perplexity'] / (theirs if peer else ours):.4f}",
            "" if row["tasks"] is None else f"{row['tasks']:.1%}",
            *(_relative(row, speed, key) for key in ("prefill_tok_per_s", "decode_tok_per_s")),
            f"{row['build_cpu_s']:.1f}" if row["build_cpu_s"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    host = document["host"]
    where = f"{document['started_utc'][:10]}, {host['cpu_count']} cores of {host['cpu_model']}"
    return (
        f"{where.strip()}; {document['tokens']:,} held-out tokens; speeds are relative to the"
        " default:\n\n" + "\n".join(lines) + "\n"
    )


def _relative(row: dict[str, Any], base: dict[str, Any], key: str) -> str:
    return "" if row[key] is None else f"{row[key] / base[key]:.2f}"


if __name__ == "__main__":
    main()
