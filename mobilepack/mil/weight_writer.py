"""Writing `weight.bin` while weights stream by; the layout is told in `storage.py`."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from mobilepack.mil.storage import BLOB_TYPES, HEADER_BYTES, SENTINEL, VERSION
from mobilepack.mil.types import DType

ALIGNMENT = 64
_METADATA = struct.Struct("<IIQQQ24x")
_NUMBERS = {dtype: number for number, dtype in BLOB_TYPES.items()} | {DType.BOOL: 3}


class WeightWriter:
    """A weight file under construction: one blob after the other, none held in memory."""

    def __init__(self, path: Path) -> None:
        """Create the file; its folder is there."""
        self._file = path.open("wb")
        self._file.write(bytes(HEADER_BYTES))
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.seek(0)
            self._file.write(struct.pack("<II", self._count, VERSION))
        self._file.close()

    @property
    def size(self) -> int:
        """Return the bytes written so far."""
        return self._file.tell()

    def add(self, dtype: DType, pieces: Iterable[np.ndarray]) -> int:
        """Write one blob and return the offset that a program names.

        Args:
            dtype: Of its elements; those of less than a byte come packed, as uint8.
            pieces: Its bytes in order, in arrays of any shape.
        """
        offset = self._align()
        self._file.write(bytes(_METADATA.size))
        start = self._file.tell()
        for piece in pieces:
            self._file.write(np.ascontiguousarray(piece).data)
        end = self._file.tell()
        self._file.seek(offset)
        self._file.write(
            _METADATA.pack(SENTINEL, _NUMBERS[dtype], end - start, start, 0)  # whole bytes: no bits
        )
        self._file.seek(end)
        self._count += 1
        return offset

    def _align(self) -> int:
        at = self._file.tell()
        self._file.write(bytes(-at % ALIGNMENT))
        return self._file.tell()


def packed_nibbles(values: np.ndarray) -> np.ndarray:
    """Return pairs of 4-bit integers (int8 or uint8, an even number) as bytes, the first low."""
    flat = values.reshape(-1).view(np.uint8) & 0xF
    return flat[::2] | flat[1::2] << 4
