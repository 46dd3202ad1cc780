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

from mobilepack.harness.host_child import import_runtime


def main() -> int:
    """Answer jobs until stdin ends."""
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bindings = import_runtime()
    import torch

    bindings._unsafe_reset_threadpool(1)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            program = bindings._load_program(job["program"])
            method = program.load_method(job["method"])
            kept: dict[str, np.ndarray] = {}
            for number, call in enumerate(job["calls"]):
                tokens = torch.tensor([call["tokens"]], dtype=torch.int64)
                where = torch.tensor([call["position"]], dtype=torch.int64)
                outputs = method((tokens, where), clone_outputs=call["keep"])
                if call["keep"]:
                    kept |= {f"{number}.{at}": out.numpy() for at, out in enumerate(outputs)}
            with Path(job["out"]).open("wb") as file:
                cast(Any, np.savez)(file, **kept)
        except RuntimeError as err:  # how the runtime's bindings report every failure
            answers.write(f"failed {str(err).splitlines()[0]}\n")
            continue
        answers.write("ok\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
