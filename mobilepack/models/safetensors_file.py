"""Rows of a safetensors file as float32."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mobilepack.errors import BuildError
from mobilepack.models.safetensors_header import parse_header, read_header
from mobilepack.models.weight_file import BLOCK_BYTES, PositionlessFile, TensorInfo, result_rows

if TYPE_CHECKING:
    import torch

FLOAT_DTYPES: Mapping[str, str] = MappingProxyType(
    {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
)


class SafetensorsFile(PositionlessFile):
    """An open safetensors file; reads are positionless, so threads may share it.

    Attributes:
        tensors: Every tensor of the file by name.
        metadata: The header's free text entries.
        header_sha256: Digest of the header's bytes.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        raw, size = read_header(path, descriptor)
        tensors, metadata = parse_header(path, raw, size)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)
        self.header_sha256 = hashlib.sha256(raw).digest()

    def readable(self, name: str) -> bool:
        """Tell whether a tensor's elements are floats."""
        return self.tensors[name].dtype in FLOAT_DTYPES

    def read_rows(
        self, name: str, start: int, stop: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read rows of a tensor as float32.

        Args:
            name: Of the tensor.
            start: First row (index of the first dimension), from 0; a scalar has one row.
            stop: One past the last row.
            out: Where to put them, float32 contiguous [rows, ...]; made if absent.

        Returns:
            float32 [stop - start, ...], `out` where it was given.

        Raises:
            BuildError: The element type is not a float.
            UsageError: The file ends early or cannot be read.
        """

        info = self.tensors[name]
        source = self._float_dtype(name, info)
        shape = info.shape or (1,)
        out = result_rows(name, shape, start, stop, out)
        row_bytes = info.nbytes // shape[0] if shape[0] else 0
        self._fill(out.view(-1), info.offset + start * row_bytes, source)
        return out

    def _float_dtype(self, name: str, info: TensorInfo) -> torch.dtype:
        import torch

        if info.dtype not in FLOAT_DTYPES:
            raise BuildError(
                "unsupported-dtype",
                f"cannot read the tensor {name!r} of {self.path}",
                why=f"its element type is {info.dtype}; weights must be one of "
                + ", ".join(FLOAT_DTYPES),
                next="use the unquantised checkpoint; mobilepack quantises it itself",
            )
        dtype = getattr(torch, FLOAT_DTYPES[info.dtype])
        assert isinstance(dtype, torch.dtype)  # noqa: S101 (for the type checker)
        return dtype

    def _fill(self, out: torch.Tensor, offset: int, source: torch.dtype) -> None:
        """Read the elements of `out` from `offset`, converting block by block where needed."""
        import torch

        if source == torch.float32:
            self.read_into(out.view(torch.uint8), offset)
            return
        count, size = out.numel(), source.itemsize
        step = min(count, BLOCK_BYTES // size)
        block = torch.empty(step * size, dtype=torch.uint8)
        for begin in range(0, count, step or 1):
            end = min(begin + step, count)
            part = block[: (end - begin) * size]
            self.read_into(part, offset + begin * size)
            out[begin:end].copy_(part.view(source))
