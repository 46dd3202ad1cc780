"""Reads numbers and texts one after the other from the beginning of an untrusted file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from mobilepack.models.weight_file import truncated, unreadable

_STEP = 1 << 20
_LENGTH = struct.Struct("<Q")


class Cursor:
    """A place in a file; what lies before it has been read.

    Attributes:
        position: Bytes from the start of the file.
    """

    def __init__(self, path: Path, descriptor: int, size: int, limit: int) -> None:
        """Begin at the start.

        Args:
            path: Of the file, for messages.
            descriptor: The open file.
            size: Of the whole file in bytes.
            limit: More bytes than this are never read.
        """
        self.position = 0
        self._path = path
        self._descriptor = descriptor
        self._size = size
        self._limit = limit
        self._buffer = bytearray()

    def left(self) -> int:
        """Return how many bytes of the file follow."""
        return self._size - self.position

    def consumed(self) -> bytes:
        """Return everything before the current position."""
        return bytes(self._buffer[: self.position])

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            UsageError: The file ends before them or cannot be read.
            ValueError: They lie beyond the limit.
        """
        begin = self._advance(count)
        return bytes(self._buffer[begin : begin + count])

    def number(self, code: str) -> int | float:
        """Return the next little-endian number, `code` as in `struct`."""
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[int | float, ...]:
        """Return the next `count` numbers; raises like `take`."""
        begin = self._advance(count * struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self._buffer, begin)

    def text(self, longest: int | None = None) -> str:
        """Return the next text: its length in bytes, then UTF-8.

        Raises:
            ValueError: It is longer than `longest`, or not UTF-8.
        """
        (length,) = _LENGTH.unpack_from(self._buffer, self._advance(_LENGTH.size))
        if longest is not None and length > longest:
            raise ValueError(f"it has a name of {length} bytes at byte {self.position - 8}")
        begin = self._advance(length)
        try:
            return self._buffer[begin : begin + length].decode()
        except UnicodeDecodeError as err:
            raise ValueError(f"the text at byte {begin} is not UTF-8: {err.reason}") from err

    def texts(self, count: int) -> list[str]:
        """Return the next `count` texts; each takes 8 bytes at least, so no count is trusted."""
        if count > self.left() // 8:
            raise ValueError(f"its array of {count} texts at byte {self.position} does not fit")
        return [self.text() for _ in range(count)]

    def _advance(self, count: int) -> int:
        """Move on by so many bytes that are now in the buffer; return where they begin."""
        begin, end = self.position, self.position + count
        if end > self._size:
            raise truncated(
                self._path, f"it has {self._size} bytes; its header alone needs {end} or more"
            )
        if end > self._limit:
            raise ValueError(f"its header is longer than {self._limit} bytes")
        while len(self._buffer) < end:
            self._fill(max(end - len(self._buffer), _STEP))
        self.position = end
        return begin

    def _fill(self, count: int) -> None:
        try:
            more = os.pread(self._descriptor, count, len(self._buffer))
        except OSError as err:
            raise unreadable(self._path, err) from err
        if not more:
            raise truncated(self._path, "it shrank while its header was read")
        self._buffer += more
