"""Rows of a safetensors file, copied with pread; the file is never mapped.

`safe_open` of the safetensors package memory-maps the file, and mapped pages count against the
peak RSS that a build is measured by; this reader copies into buffers it drops again.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from mobilepack.errors import BuildError
from mobilepack.models.safetensors_header import (
    TensorInfo,
    parse_header,
    read_header,
    truncated,
    unreadable,
)

if TYPE_CHECKING:
    import torch

FLOAT_DTYPES: Mapping[str, str] = MappingProxyType(
    {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
)
# Raw bytes held beside the result while converting: small enough to stay in the L2 cache.
BLOCK_BYTES = 1 << 19


class SafetensorsFile:
    """An open safetensors file; reads are positionless, so threads may share it.

    Attributes:
        tensors: Every tensor of the file by name.
        metadata: The header's free text entries.
        header_sha256: Digest of the header's bytes.
        size_bytes: Of the whole file, when it was opened.
        mtime_ns: When the file was last modified, as of then.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        raw, size = read_header(path, descriptor)
        tensors, metadata = parse_header(path, raw, size)
        self.path = path
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)
        self.header_sha256 = hashlib.sha256(raw).digest()
        self.size_bytes = size
        self.mtime_ns = os.fstat(descriptor).st_mtime_ns
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and validate its whole header.

        Raises:
            UsageError: The file cannot be read, is truncated or breaks the format.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise unreadable(path, err) from err
        try:
            return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the file; further reads are errors."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        import torch

        info = self.tensors[name]
        source = self._float_dtype(name, info)
        shape = info.shape or (1,)
        if not 0 <= start <= stop <= shape[0]:
            raise ValueError(f"rows {start}..{stop} of {name!r} {list(shape)}")
        result_shape = (stop - start, *shape[1:])
        if out is None:
            out = torch.empty(result_shape, dtype=torch.float32)
        fits = out.dtype == torch.float32 and tuple(out.shape) == result_shape
        if not (fits and out.is_contiguous()):
            raise ValueError(f"out must be contiguous float32 {list(result_shape)}")
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
            self._read_into(out.view(torch.uint8), offset)
            return
        count, size = out.numel(), source.itemsize
        step = min(count, BLOCK_BYTES // size)
        block = torch.empty(step * size, dtype=torch.uint8)
        for begin in range(0, count, step or 1):
            end = min(begin + step, count)
            part = block[: (end - begin) * size]
            self._read_into(part, offset + begin * size)
            out[begin:end].copy_(part.view(source))

    def _read_into(self, target: torch.Tensor, offset: int) -> None:
        view = target.numpy().data if target.numel() else memoryview(b"")
        if not self._close.alive:
            raise ValueError(f"{self.path} is closed")
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self._descriptor, [view[done:]], offset + done)
            except OSError as err:
                raise unreadable(self.path, err) from err
            if got == 0:
                raise truncated(self.path, f"it ended at byte {offset + done} while being read")
            done += got
