"""Hold a deep QNN program to its model, step by step: `python -m benchmarks.qnn_depth`.

SmolLM2-135M's shape (30 layers) with random weights, 16a4w and keys and values of 8 bits, for
SM8650: a prompt of 96 tokens in prefills of 32, then decode steps to the last of 128 positions, in
Qualcomm's HTP emulator. Each step's logits are compared with those of the fake-quantised eager
model, as `mobilepack verify` does it: the cosine over the recorder's sampled ids, and the most
likely token. The floor is the model's own, as `verify` takes it: the least cosine of a text between
it and itself with its 16-bit roundings made at random.

Lowering and emulator have a process each with Qualcomm's libraries. A step takes seconds; the JSON
is written after each, and `--steps` takes fewer. A sentence of docs/targets/qnn.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import qnn_build
from benchmarks.host import describe_host
from benchmarks.qnn_build import random_ids, write_weights
from benchmarks.shapes import shape_named
from mobilepack.backends.qnn.lowering import run_lowering
from mobilepack.backends.qnn.probe import usable_sdk
from mobilepack.backends.qnn.request import LowerRequest, LowerResult
from mobilepack.contract.reference import Rows, record, sample_ids
from mobilepack.metrics.parity import cosine
from mobilepack.models.families.registry import family_of
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.static_session import StaticSession

SCHEMA = "mobilepack.benchmarks.qnn_depth/1"
RESULT = Path(__file__).parent / "results" / "qnn-depth.json"
SHAPE, PREFILL, CONTEXT, STEPS, CALIBRATION = "smollm2-135m", 32, 128, 32, 2
_REPOSITORY = Path(__file__).resolve().parent.parent


def request_for(spec: DecoderSpec, folder: Path, steps: int) -> LowerRequest:
    """Return what is lowered; its only passage is the prompt and the tokens of the steps."""
    ids = random_ids(spec)
    return replace(
        qnn_build.request_for(spec, folder),
        max_seq_len=CONTEXT,
        prefill_tokens=PREFILL,
        rows=tuple(ids(CONTEXT) for _ in range(CALIBRATION)),
        passages=(("text", ids(CONTEXT)[: CONTEXT - STEPS + steps]),),
        phone_out=None,
    )


def emulated(request: LowerRequest, result: LowerResult) -> Iterator[tuple[int, Any, float]]:
    """Run the text; yield position, logits [V] and seconds of the last prefill and each step."""
    from executorch.extension.pybindings import portable_lib

    program = portable_lib._load_for_executorch(str(request.out))

    def run(name: str, arrays: Sequence[Any]) -> list[Any]:
        tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        return [output.numpy().copy() for output in program.run_method(name, tensors)]

    session = StaticSession(result.form, result.methods, run)
    ids, prompt = np.array(request.passages[0][1]), CONTEXT - STEPS
    for at in range(0, prompt, PREFILL):
        start = time.monotonic()
        logits = session(ids[at : at + PREFILL], at)
    yield prompt - 1, logits, time.monotonic() - start
    for at in range(prompt, len(ids)):
        start = time.monotonic()
        yield at, session(ids[at : at + 1], at), time.monotonic() - start


def compared(
    request: LowerRequest, rows: dict[Any, Rows], position: int, logits: Any, seconds: float
) -> dict[str, Any]:
    """Return one row of the result."""
    sampled = sample_ids(request.spec.vocab_size)
    have = record(logits[None], [-1], sampled)
    want, moved = rows["quantised"], rows["floor"]
    here = slice(position, position + 1)
    return {
        "position": position,
        "method": "prefill" if position < CONTEXT - STEPS else "decode",
        "cosine": _cosine(want.sampled[here], have.sampled),
        "floor_cosine": _cosine(want.sampled[here], moved.sampled[here]),
        "same_top1": bool(have.top_ids[0, 0] == want.top_ids[position, 0]),
        "wall_s": round(seconds, 1),
    }


def _cosine(one: Any, other: Any) -> float:
    return round(float(cosine(one, other).min()), 7)


def run_text(folder: Path) -> None:
    """Be the emulator's process: print a row of the result per line."""
    torch.set_num_threads(1)
    request, result = LowerRequest.load(folder / "request"), LowerResult.load(folder / "result")
    for position, logits, seconds in emulated(request, result):
        print(json.dumps(compared(request, result.rows, position, logits, seconds)), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the libraries' own end is not our matter


def rows_of(spec: DecoderSpec, steps: int) -> Iterator[dict[str, Any]]:
    """Lower a shape and run the text; yield the floor, then a row per call that gives logits."""
    with tempfile.TemporaryDirectory(prefix="mobilepack-qnn-depth-") as text:
        folder, sdk = Path(text), usable_sdk()
        write_weights(spec, folder / "weights.safetensors")
        request = request_for(spec, folder, steps)
        request.save(folder / "request")
        result = run_lowering(request, sdk, folder / "log", lambda stage, share: None)
        request.weights.unlink()
        result.save(folder / "result")
        floors = [result.rows[name].sampled for name in ("quantised", "floor")]
        yield {"floor_cosine_min": _cosine(*floors), "positions": len(floors[0])}
        argv = [sys.executable, "-m", "benchmarks.qnn_depth", "--emulate", str(folder)]
        environment = {**sdk.environment(), "PYTHONPATH": str(_REPOSITORY)}
        with subprocess.Popen(
            argv, env=environment, cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None  # noqa: S101  it is a pipe
            yield from (json.loads(line) for line in child.stdout if line.startswith("{"))
        if child.returncode:
            sys.exit(f"the emulator's process ended with {child.returncode}")


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the decode steps say together."""
    steps = [row for row in rows if row["method"] == "decode"]
    return {
        "steps": len(steps),
        "cosine_min": min((row["cosine"] for row in steps), default=None),
        "same_top1": sum(row["same_top1"] for row in steps),
    }


def render(path: Path = RESULT) -> str:
    """Return what docs/targets/qnn.md says of a result."""
    document = json.loads(path.read_text())
    found, floor = document["summary"], document["floor"]["floor_cosine_min"]
    steps = [row for row in document["rows"] if row["method"] == "decode"]
    least = min(row["floor_cosine"] for row in steps)
    worst = max((1 - row["cosine"]) / (1 - row["floor_cosine"]) for row in steps)
    text = (
        "At depth (SmolLM2-135M's shape, 30 layers, random weights, 16a4w with keys and values of"
        f" 8 bits; a prompt of {document['prompt_tokens']} tokens in prefills of"
        f" {document['prefill_tokens']}, then decode steps up to position"
        f" {document['rows'][-1]['position']}): cosine {found['cosine_min']:.5f} or better in each"
        f" of {found['steps']} steps against the fake-quantised model, and the same top token in"
        f" {found['same_top1']}. The model's own floor is {least:.5f} in these steps"
        f" and {floor:.5f} in the whole text; in no step is 1 - cosine more than {worst:.1f} times"
        f" the floor's ({document['started_utc'][:10]}, `benchmarks/qnn_depth.py`,"
        " `results/qnn-depth.json`)."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, choices=range(1, STEPS + 1))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--emulate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.emulate:
        run_text(options.emulate)
    config = shape_named(SHAPE).config()
    started, load = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()
    floor, rows = {}, []
    for found in rows_of(family_of(config).read(config), options.steps):
        if not floor:
            floor = found
            continue
        rows.append(found)
        print(found, flush=True)
        document = {
            "schema": SCHEMA,
            "started_utc": started,
            "host": asdict(describe_host()),
            "load_average_before": load,
            "shape": SHAPE,
            "recipe": "16a4w, SM8650, the emulator's program",
            "max_seq_len": CONTEXT,
            "prefill_tokens": PREFILL,
            "prompt_tokens": CONTEXT - STEPS,
            "floor": floor,
            "summary": summary(rows),
            "rows": rows,
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
