"""Measure what lowering for QNN costs: `python -m benchmarks.qnn_build`.

Prefill and decode in 16a4w for SM8650, context 512, prefill of 128, two calibration texts of 256
tokens, passages of 49 and 34 tokens; both programs (the emulator's and the phone's). Weights are
random and in bfloat16, of the published shapes (`shapes.py`). Each shape is lowered by a fresh
process, the one that `mobilepack build` starts; its CPU seconds and peak RSS are the kernel's.
Writes JSON; a table of docs/targets/qnn.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.host import describe_host
from benchmarks.shapes import shape_named
from mobilepack.backends.qnn.lowering import CHILD
from mobilepack.backends.qnn.probe import usable_sdk
from mobilepack.backends.qnn.request import LowerRequest, LowerResult
from mobilepack.models.families.registry import family_of
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.pipeline.qnn import CONTEXT_BYTES

SCHEMA = "mobilepack.benchmarks.qnn_build/1"
RESULT = Path(__file__).parent / "results" / "qnn-build.json"
NAMES = ("smollm2-135m", "qwen3-0.6b", "llama3.2-1b")
PREFILL, CONTEXT, ROW, PASSAGES = 128, 512, 256, (49, 34)


def write_weights(spec: DecoderSpec, path: Path) -> int:
    """Write random weights with the variance of a trained model's; returns their number."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in parameter_shapes(spec).items():
        if name == "head.weight" and spec.tied_head:
            continue
        scale = 1.0 if name == "embed.weight" else shape[-1] ** -0.5
        values = torch.randn(shape, generator=generator) * scale
        made[name] = torch.ones(shape) if len(shape) == 1 else values.bfloat16()
    save_file(made, path)
    return sum(tensor.numel() for tensor in made.values())


def random_ids(spec: DecoderSpec) -> Callable[[int], tuple[int, ...]]:
    """Return what gives so many token ids, others each time, the same in every process."""
    generator = torch.Generator().manual_seed(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(spec.vocab_size, (count,), generator=generator).tolist())

    return ids


def request_for(spec: DecoderSpec, folder: Path) -> LowerRequest:
    """Return what `mobilepack build` would ask the child."""
    ids = random_ids(spec)
    return LowerRequest(
        spec=spec,
        weights=folder / "weights.safetensors",
        shared={"head.weight": "embed.weight"} if spec.tied_head else {},
        precision="16a4w",
        max_seq_len=CONTEXT,
        prefill_tokens=PREFILL,
        soc_model="SM8650",
        heads="together",
        rows=(ids(ROW), ids(ROW)),
        passages=tuple((str(count), ids(count)) for count in PASSAGES),
        metadata={},
        out=folder / "model.pte",
        phone_out=folder / "model.phone.pte",
        context_limit_bytes=CONTEXT_BYTES,
    )


def lowered(name: str) -> dict[str, Any]:
    """Lower a shape in a fresh process."""
    shape = shape_named(name)
    spec = family_of(shape.config()).read(shape.config())
    with tempfile.TemporaryDirectory(prefix="mobilepack-qnn-bench-") as text:
        folder = Path(text)
        parameters = write_weights(spec, folder / "weights.safetensors")
        request_for(spec, folder).save(folder / "request")
        argv = [*CHILD, str(folder / "request"), str(folder / "result")]
        start = time.monotonic()
        with (folder / "log").open("w") as log:
            child = subprocess.Popen(
                argv, stdout=log, stderr=log, env=dict(usable_sdk().environment())
            )
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit((folder / "log").read_text()[-2000:])
        result = LowerResult.load(folder / "result")
        return {
            "shape": name,
            "parameters": parameters,
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
            "wall_s": round(time.monotonic() - start, 1),
            "peak_rss_bytes": usage.ru_maxrss * 1024,
            "emulator_program_bytes": (folder / "model.pte").stat().st_size,
            "phone_program_bytes": (folder / "model.phone.pte").stat().st_size,
            "operators": result.operators,
        }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(NAMES))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    load = os.getloadavg()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    results: list[dict[str, Any]] = []
    for name in options.shapes:
        results.append(lowered(name))
        found = {
            "schema": SCHEMA,
            "started_utc": started,
            "host": asdict(describe_host()),
            "load_average_before": load,
            "recipe": "16a4w, prefill and decode, emulator's and phone's program",
            "results": results,
        }
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
