"""A file that holds weights: read piece by piece with pread, never mapped.

Mapped pages count against the peak RSS that a build is measured by; these readers copy into buffers
that they drop again.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from mobilepack.errors import UsageError

if TYPE_CHECKING:
    import torch

# Raw bytes held beside the result while converting: small enough to stay in the L2 cache.
BLOCK_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        dtype: As the format names it, for example `BF16`.
        offset: Of its first byte, from the start of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class WeightFile(Protocol):
    """An open file of tensors, whatever its format."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    header_sha256: bytes
    size_bytes: int
    mtime_ns: int

    def readable(self, name: str) -> bool:
        """Tell whether a tensor can be read as float32."""
        ...

    def read_rows(
        self, name: str, start: int, stop: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive) of a tensor as float32."""
        ...

    def close(self) -> None:
        """Close the file; further reads are errors."""
        ...


def unreadable(path: Path, err: OSError) -> UsageError:
    """Return the error for a file the operating system refuses."""
    return UsageError(
        "unreadable-file",
        f"cannot read {path}",
        why=err.strerror or str(err),
        next="check the path and its permissions",
    )


def truncated(path: Path, why: str) -> UsageError:
    """Return the error for a file that is shorter than it says."""
    return UsageError(
        "truncated-weights",
        f"{path} is incomplete",
        why=why,
        next="download or copy the file again; its size should equal the original's",
    )


class PositionlessFile:
    """An open file whose reads name their place, so threads may share it.

    Attributes:
        size_bytes: Of the whole file, when it was opened.
        mtime_ns: When the file was last modified, as of then.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.path = path
        self.size_bytes = status.st_size
        self.mtime_ns = status.st_mtime_ns
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and validate its whole header.

        Raises:
            UsageError: The file cannot be read, is truncated or breaks its format.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise unreadable(path, err) from err
        return cls(path, descriptor)

    def close(self) -> None:
        """Close the file; further reads are errors."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_into(self, target: torch.Tensor, offset: int) -> None:
        """Fill contiguous uint8 `target` with the bytes from `offset` on.

        Raises:
            UsageError: The file ends early or cannot be read.
        """
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


def result_rows(
    name: str, shape: tuple[int, ...], start: int, stop: int, out: torch.Tensor | None
) -> torch.Tensor:
    """Return where rows of a tensor go: `out` if it fits, else a new float32 tensor.

    Raises:
        ValueError: The rows are not the tensor's, or `out` has another shape or type.
    """
    import torch

    if not 0 <= start <= stop <= shape[0]:
        raise ValueError(f"rows {start}..{stop} of {name!r} {list(shape)}")
    wanted = (stop - start, *shape[1:])
    if out is None:
        return torch.empty(wanted, dtype=torch.float32)
    fits = out.dtype == torch.float32 and tuple(out.shape) == wanted
    if not (fits and out.is_contiguous()):
        raise ValueError(f"out must be contiguous float32 {list(wanted)}")
    return out
