"""Runs tapped programs for `tapping`: `python -m mobilepack.harness.tap_child`, a job per line.

A job names a program, calls and where their outputs go (one .npz, arrays `<call>.<output>`); the
answer is one line, `ok` or what failed. It ends with its stdin.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.harness.host_child import import_runtime
from mobilepack.harness.static_program import StaticProgram


def main() -> int:
    """Answer jobs until stdin ends."""
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bindings = import_runtime()
    bindings._unsafe_reset_threadpool(1)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            kept = _static(bindings, job) if job["package"] else _dynamic(bindings, job)
            with Path(job["out"]).open("wb") as file:
                cast(Any, np.savez)(file, **kept)
        except RuntimeError as err:  # how the runtime's bindings report every failure
            answers.write(f"failed {str(err).splitlines()[0]}\n")
            continue
        answers.write("ok\n")
    return 0


def _dynamic(bindings: Any, job: dict[str, Any]) -> dict[str, np.ndarray]:
    import torch

    program = bindings._load_program(job["program"])
    method = program.load_method("forward")
    kept: dict[str, np.ndarray] = {}
    for number, call in enumerate(job["calls"]):
        tokens = torch.tensor([call["tokens"]], dtype=torch.int64)
        where = torch.tensor([call["position"]], dtype=torch.int64)
        outputs = method((tokens, where), clone_outputs=call["keep"])
        if call["keep"]:
            kept |= {f"{number}.{at}": out.numpy() for at, out in enumerate(outputs)}
    return kept


def _static(bindings: Any, job: dict[str, Any]) -> dict[str, np.ndarray]:
    manifest = Manifest.read(Path(job["package"]) / MANIFEST)
    program = StaticProgram(bindings, Path(job["program"]), manifest)
    kept: dict[str, np.ndarray] = {}
    for number, call in enumerate(job["calls"]):
        program(np.array(call["tokens"], dtype=np.int64), call["position"])
        if call["keep"]:
            kept |= {f"{number}.{at}": out.copy() for at, out in enumerate(program.last)}
    return kept


if __name__ == "__main__":
    sys.exit(main())
