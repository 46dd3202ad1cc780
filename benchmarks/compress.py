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
from statistics import quantiles
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
from mobilepack.models.zoo.corpus import held_out_text
from mobilepack.models.zoo.tasks import tasks
from mobilepack.pipeline.compression_options import CompressionChoices
from mobilepack.pipeline.plan import Choices

SCHEMA = "mobilepack.benchmarks.compress/1"
RESULT = Path(__file__).parent / "results" / "compression" / "embedded.json"
TEXTS = 300  # held-out; 26,000 tokens
ROUNDS = 3
FORMATS = ("BF16", "Q8_0", "Q4_K_M", "Q4_0")


@dataclass(frozen=True, slots=True)
class Variant:
    """One package, or one file of llama.cpp.

    Attributes:
        options: What was added to `mobilepack build`.
        build_cpu_s: CPU seconds of pruning and calibration alone.
        perplexity: On the held-out text.
        tasks: Share of right answers; None where it was not measured.
        prefill: Speed of a prompt of 128 tokens, relative to the default; see `speeds`.
        decode: Speed of generated tokens, likewise.
    """

    options: str
    bytes: int
    parameters: int
    perplexity: float
    build_cpu_s: float = 0.0
    tasks: float | None = None
    prefill: float | None = None
    decode: float | None = None


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
    yield "--prune-vocab texts.txt", _with(plain, vocabulary=corpus)
    for how in ("wanda:0.5", "wanda:2:4", "layers:4", "layers:3-4", "width:0.25", "width:0.5"):
        yield f"--prune {how}", _with(plain, prune=(how,))
    yield "--prune wanda:0.5 --calibrate gptq", _with(plain, prune=("wanda:0.5",), calibrate="gptq")
    everything = _with(plain, prune=("width:0.25",), calibrate="gptq", vocabulary=corpus)
    yield "--prune width:0.25 --prune-vocab texts.txt --calibrate gptq", everything


def _with(choices: Choices, **wishes: Any) -> Choices:
    return replace(choices, compression=CompressionChoices(**wishes))


def measure(options: str, choices: Choices, out: Path) -> Variant:
    """Build one variant and measure it."""
    (built,) = build(BuildOptions(out=out, choices=choices, force=True))
    package, manifest = open_package(built.folder), built.manifest
    with answering(package, threads=2, timeout_s=600) as model:
        share = run_pocket(model, None, lambda what, share: None)[0].metrics[0].value
        perplexity = held_out(model, TEXTS, lambda what, share: None).metrics[0].value
    mine = ("prune", "calibrate")
    return Variant(
        options=options,
        bytes=package.program.stat().st_size,
        parameters=manifest.parameters,
        perplexity=perplexity,
        build_cpu_s=sum(stage.cpu_s for stage in manifest.stages if stage.name.startswith(mine)),
        tasks=share,
    )


def speeds(folders: dict[str, Path]) -> dict[str, tuple[float, float]]:
    """Return prefill and decode of each variant relative to the default.

    Rounds go through all variants in turn, and the fast end of the samples counts (the fastest
    prompt, the tenth percentile of the tokens): whatever else the machine does only adds time.
    """
    options = BenchOptions(prompt_tokens=(128,), gen_tokens=(64,), threads=2)
    prompts: dict[str, list[int]] = {name: [] for name in folders}
    tokens: dict[str, list[int]] = {name: [] for name in folders}
    for _ in range(ROUNDS):
        for name, folder in folders.items():
            prefill, decode = bench(folder, options).bench.tests
            prompts[name] += prefill.prefill_ns
            tokens[name] += [ns for row in decode.decode_ns for ns in row]
    fastest = {name: (min(prompts[name]), quantiles(tokens[name], n=10)[0]) for name in folders}
    first = fastest[""]
    return {
        name: (first[0] / prompt, first[1] / token) for name, (prompt, token) in fastest.items()
    }


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
    """Write what an app needs that says no more than the measured text and the questions."""
    questions = (f"{item.messages[0].content}\n{item.answer}" for item in tasks())
    path.write_text("\n".join([*held_out_text(TEXTS), *questions]), encoding="utf-8")


def main() -> None:
    """Measure everything and write the document after every variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--no-peer", action="store_true", help="leave llama.cpp out")
    parser.add_argument(
        "--only",
        default="",
        help="measure only the variants whose options hold this, into the same document",
    )
    parser.add_argument("--speeds", action="store_true", help="measure speeds again, no more")
    arguments = parser.parse_args()
    document = _begun(arguments.out if arguments.only or arguments.speeds else None)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="mobilepack-compress-") as name:
        folder = Path(name)
        write_corpus(folder / "texts.txt")
        packages: dict[str, Path] = {}
        for number, (options, choices) in enumerate(variants(folder / "texts.txt")):
            if arguments.only not in options:
                continue
            out = packages[options] = folder / str(number)
            if arguments.speeds:
                build(BuildOptions(out=out, choices=choices))
                continue
            found = measure(options, choices, out)
            if not arguments.no_peer and not (folder / "ids.json").exists():
                _write_ids(out, folder / "ids.json", document)
            _add(document, found, arguments.out)
        if not arguments.no_peer and not arguments.only and not arguments.speeds:
            for found in llama_cpp(folder / "ids.json"):
                _add(document, found, arguments.out)
        if not arguments.only:
            _add_speeds(document, speeds(packages), arguments.out)


def _begun(earlier: Path | None) -> dict[str, Any]:
    """Return an earlier document to go on with, or an empty one."""
    if earlier is not None and earlier.is_file():
        found: dict[str, Any] = json.loads(earlier.read_text())
        return found
    return {
        "schema": SCHEMA,
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "representative": False,
        "host": asdict(describe_host()),
        "texts": TEXTS,
        "tokens": 0,
        "variants": [],
    }


def _write_ids(out: Path, path: Path, document: dict[str, Any]) -> None:
    with answering(open_package(out), threads=2, timeout_s=600) as model:
        rows = held_out_rows(model, TEXTS)
    document["tokens"] = sum(len(row) for row in rows)
    path.write_text(json.dumps(rows))


def _add(document: dict[str, Any], found: Variant, out: Path) -> None:
    print(found, file=sys.stderr, flush=True)
    names = [row["options"] for row in document["variants"]]
    at = names.index(found.options) if found.options in names else len(names)
    document["variants"][at : at + 1] = [asdict(found)]
    _save(document, out)


def _add_speeds(document: dict[str, Any], found: dict[str, tuple[float, float]], out: Path) -> None:
    for row in document["variants"]:
        if row["options"] in found:
            row["prefill"], row["decode"] = found[row["options"]]
    _save(document, out)


def _save(document: dict[str, Any], out: Path) -> None:
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
            *("" if row[key] is None else f"{row[key]:.2f}" for key in ("prefill", "decode")),
            f"{row['build_cpu_s']:.1f}" if row["build_cpu_s"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    host = document["host"]
    where = f"{document['started_utc'][:10]}, {host['cpu_count']} cores of {host['cpu_model']}"
    return (
        f"{where.strip()}; {document['tokens']:,} held-out tokens; speeds are relative to the"
        " default:\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
