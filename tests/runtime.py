"""ExecuTorch's runtime in this process: load a program and feed it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

_KERNELS = (
    "extension/llm/custom_ops/libcustom_ops_aot_lib.*",
    "kernels/quantized/libquantized_ops_aot_lib.*",
)


@cache
def load_kernels() -> None:
    """Register the kernels that programs use beside the delegate, for eager and runtime.

    The public modules do it too, and import the exporter with it: seconds, and warnings.
    """
    import executorch
    from executorch.extension.pybindings import _C  # noqa: F401  what the libraries link to

    root = Path(next(iter(executorch.__path__)))
    for pattern in _KERNELS:
        torch.ops.load_library(next(root.glob(pattern)))


class Program:
    """A loaded program; every call goes on with the KV cache that the last one left."""

    def __init__(self, path: Path) -> None:
        load_kernels()
        from executorch.extension.pybindings import _C

        self._program: Any = _C._load_program(str(path))
        self._forward: Any = self._program.load_method("forward")

    def call(self, tokens: Sequence[int], position: int) -> torch.Tensor:
        """Feed tokens from a position on; returns float32 [vocab]."""
        inputs = (torch.tensor([list(tokens)]), torch.tensor([position]))
        (logits,) = self._forward(inputs)
        return torch.as_tensor(logits).reshape(-1).clone()

    def feed(self, ids: Sequence[int], calls: Sequence[int], start: int = 0) -> torch.Tensor:
        """Feed ids in calls of the given lengths; returns [calls, vocab]."""
        rows, at = [], 0
        for length in calls:
            rows.append(self.call(ids[at : at + length], start + at))
            at += length
        return torch.stack(rows)

    def constants(self) -> dict[str, list[Any]]:
        """Return what the methods other than `forward` answer."""
        names = [self._program.get_method_name(i) for i in range(self._program.num_methods())]
        return {
            name: list(self._program.load_method(name)(())) for name in names if name != "forward"
        }
