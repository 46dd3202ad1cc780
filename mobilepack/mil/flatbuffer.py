"""Reading tables of a flatbuffer in place, every offset checked against the end of the buffer.

Format: https://flatbuffers.dev/internals (tables, vtables, vectors; little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mobilepack.errors import UsageError


class BrokenBuffer(Exception):  # noqa: N818 - a signal inside this floor, never shown
    """An offset leads out of the buffer."""


def _number(data: memoryview, fmt: str, at: int) -> int:
    if at < 0:
        raise BrokenBuffer(f"offset {at}")
    try:
        value: int = struct.unpack_from("<" + fmt, data, at)[0]
    except struct.error as err:
        raise BrokenBuffer(str(err)) from err
    return value


@dataclass(frozen=True, slots=True)
class Table:
    """One table; fields are named by their place in the schema, a union takes two."""

    data: memoryview
    at: int

    def _field(self, slot: int) -> int:
        """Return where a field is stored, 0 where it is absent."""
        vtable = self.at - _number(self.data, "i", self.at)
        place = 4 + 2 * slot
        if place >= _number(self.data, "H", vtable):
            return 0
        offset = _number(self.data, "H", vtable + place)
        return self.at + offset if offset else 0

    def number(self, slot: int, fmt: str, default: int = 0) -> int:
        """Return an integer field (`struct`'s letter for its type)."""
        at = self._field(slot)
        return _number(self.data, fmt, at) if at else default

    def real(self, slot: int) -> float:
        """Return a double field."""
        at = self._field(slot)
        if not at:
            return 0.0
        if at + 8 > len(self.data):
            raise BrokenBuffer(f"offset {at}")
        value: float = struct.unpack_from("<d", self.data, at)[0]
        return value

    def table(self, slot: int) -> Table | None:
        """Return a field that is a table."""
        at = self._field(slot)
        return Table(self.data, at + _number(self.data, "I", at)) if at else None

    def _vector(self, slot: int, width: int) -> tuple[int, int]:
        """Return where a vector's elements begin and how many there are."""
        at = self._field(slot)
        if not at:
            return 0, 0
        start = at + _number(self.data, "I", at)
        count = _number(self.data, "I", start)
        if start + 4 + count * width > len(self.data):
            raise BrokenBuffer(f"a vector of {count} at {start}")
        return start + 4, count

    def numbers(self, slot: int, fmt: str) -> tuple[int, ...]:
        """Return a vector of integers."""
        start, count = self._vector(slot, struct.calcsize("<" + fmt))
        return struct.unpack_from(f"<{count}{fmt}", self.data, start) if count else ()

    def raw(self, slot: int) -> memoryview:
        """Return a vector of bytes, not copied."""
        start, count = self._vector(slot, 1)
        return self.data[start : start + count]

    def text(self, slot: int) -> str:
        """Return a string, "" where it is absent."""
        return bytes(self.raw(slot)).decode("utf-8", "replace")

    def tables(self, slot: int) -> tuple[Table, ...]:
        """Return a vector of tables."""
        start, count = self._vector(slot, 4)
        places = range(start, start + 4 * count, 4)
        return tuple(Table(self.data, at + _number(self.data, "I", at)) for at in places)


def root(data: memoryview) -> Table:
    """Return the root table."""
    return Table(data, _number(data, "I", 0))


def broken(name: str, err: BrokenBuffer) -> UsageError:
    """Return the error of a file whose flatbuffer is damaged."""
    return UsageError(
        "invalid-program",
        f"cannot read {name}",
        why=f"its flatbuffer is damaged or truncated: {err}",
        next="build the program again",
    )
