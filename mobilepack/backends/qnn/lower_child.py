"""The child process that lowers: `python -m mobilepack.backends.qnn.lower_child REQUEST RESULT`.

It alone loads Qualcomm's libraries and ExecuTorch's exporter. It tells its progress on its original
stdout, one `stage share` per line; all that libraries print goes to stderr.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from mobilepack.backends.qnn.request import LowerRequest

OnStage = Callable[[str, float], None]


def main(argv: list[str]) -> int:
    """Lower what a request asks for; returns the exit status."""
    faulthandler.enable()
    tell = _own_stdout()
    torch.set_num_threads(1)
    request = LowerRequest.load(Path(argv[0]))
    if request.taps is not None:
        from mobilepack.backends.qnn.tapped_lowering import lower_tapped

        result = lower_tapped(request, tell)
    elif request.lowering == "fast":
        from mobilepack.backends.qnn.fast_lowering import lower

        result = lower(request, tell)
    else:
        from mobilepack.backends.qnn.reference_lowering import lower_by_executorch

        result = lower_by_executorch(request, tell)
    result.save(Path(argv[1]))
    return 0


def _own_stdout() -> OnStage:
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda stage, share: print(f"{stage} {share:.4f}", file=stream)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
