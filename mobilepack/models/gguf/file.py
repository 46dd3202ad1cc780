"""Rows of a GGUF file's tensors as float32, dequantised block by block while they are read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mobilepack.errors import UsageError
from mobilepack.models.config import Json
from mobilepack.models.gguf.architectures import rotated_pairs
from mobilepack.models.gguf.header import read_header
from mobilepack.models.gguf.types import BY_NAME, READABLE
from mobilepack.models.weight_file import BLOCK_BYTES, PositionlessFile, TensorInfo, result_rows

if TYPE_CHECKING:
    import torch


class GgufFile(PositionlessFile):
    """An open GGUF file.

    Attributes:
        metadata: The header's values by key.
        tensors: Every tensor by the file's own name. Experts that are stacked are presented as rows
            of one matrix, norms of every head as one vector.
        header_sha256: Digest of the header's bytes.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        header = read_header(path, descriptor, self.size_bytes)
        self.metadata: Mapping[str, Json] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: _presented(name, info) for name, info in header.tensors.items()}
        )
        self.header_sha256 = hashlib.sha256(header.raw).digest()
        _check_types(path, self.tensors)
        self._pairs = rotated_pairs(header.metadata, self.tensors)

    def readable(self, name: str) -> bool:
        """Tell whether a tensor can be read as float32."""
        return self.tensors[name].dtype in READABLE

    def read_rows(
        self, name: str, start: int, stop: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read rows of a tensor as float32, in the order of Hugging Face's checkpoints.

        llama.cpp's converter brings the channels that rotate together side by side in families that
        rotate neighbours; here they lie half a head apart again.

        Args:
            name: Of the tensor.
            start: First row (index of the first dimension), from 0.
            stop: One past the last row.
            out: Where to put them, float32 contiguous `[rows, ...]`; made if absent.

        Returns:
            float32 `[stop - start, ...]`, `out` where it was given.

        Raises:
            UsageError: The file ends early or cannot be read.
        """
        info, head = self.tensors[name], self._pairs.get(name, 0)
        out = result_rows(name, info.shape, start, stop, out)
        if not head or start == stop:
            self._fill(info, start, out)
            return out
        first, last = start // head * head, -(-stop // head) * head
        whole = result_rows(name, info.shape, first, last, None)
        self._fill(info, first, whole)
        apart = whole.unflatten(0, (-1, head // 2, 2)).transpose(1, 2).flatten(0, 2)
        return out.copy_(apart[start - first : stop - first])

    def _fill(self, info: TensorInfo, start: int, out: torch.Tensor) -> None:
        """Read the rows of `out` from row `start` on, a few hundred kilobytes at a time."""
        import torch

        from mobilepack.models.gguf.blocks import DEQUANTISERS

        kind, dequantise = BY_NAME[info.dtype], DEQUANTISERS[info.dtype]
        flat = out.view(-1)
        at = info.offset + kind.nbytes(start * math.prod(info.shape[1:]))
        blocks = flat.numel() // kind.block
        step = max(1, BLOCK_BYTES // kind.size)
        raw = torch.empty((min(step, blocks), kind.size), dtype=torch.uint8)
        for begin in range(0, blocks, step):
            part = raw[: min(step, blocks - begin)]
            self.read_into(part.view(-1), at + begin * kind.size)
            numbers = dequantise(part)
            flat[begin * kind.block :][: numbers.numel()].copy_(numbers.view(-1))


def _presented(name: str, info: TensorInfo) -> TensorInfo:
    """Return a tensor with the axes that the decoder gives it; its numbers lie as they did."""
    shape = info.shape
    if len(shape) == 2 and name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
        shape = (math.prod(shape),)
    elif len(shape) == 1 and name.endswith("ffn_gate_inp_shexp.weight"):
        shape = (1, *shape)
    elif len(shape) > 2:
        shape = (math.prod(shape[:-1]), shape[-1])
    return TensorInfo(info.dtype, shape, info.offset, info.nbytes)


def _check_types(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    wrong = [
        f"{name} is {info.dtype}" for name, info in tensors.items() if info.dtype not in READABLE
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise UsageError(
            "gguf-type",
            f"cannot read the weights of {path}",
            why="; ".join(wrong[:4]) + more,
            next=f"choose a file whose tensors are of these types: {', '.join(READABLE)}",
        )
