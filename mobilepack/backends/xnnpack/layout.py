"""Where every byte of a program file lies, decided before any weight is read.

The program's flatbuffer comes first, then the segments. Each region names what fills it, so that
the weights can be read, quantised and written once, in order, into their final place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_ALIGNMENT = 128  # bytes; XNNPACK reads weights with vector loads, 64 would do


@dataclass(frozen=True, slots=True)
class HeadRows:
    """A choice of rows within every head: those with `start <= row % period < stop`."""

    period: int
    start: int
    stop: int

    def count(self, rows: int) -> int:
        """Return how many of `rows` rows are chosen."""
        return rows // self.period * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Bytes:
    """Literal content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Vector:
    """A one-dimensional float32 parameter, or the chosen rows of it."""

    parameter: str
    rows: HeadRows | None = None


@dataclass(frozen=True, slots=True)
class RopeTable:
    """A rotary table, float32 `[max_seq_len, rotated / 2]`."""

    which: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix in one storage format.

    Attributes:
        encoding: `fp32`; `int4` (XNNPACK order: even column in the low nibble, offset 8) with bf16
            scales per `group`; `int8` with a float32 scale per row; `embedding4` (even column in
            the high nibble, offset 8) with fp16 scales per `group`.
        part: `values` or `scales`; both parts of a matrix come from one pass over it.
    """

    parameter: str
    encoding: str
    group: int
    part: str
    rows: HeadRows | None = None


Content = Bytes | Vector | RopeTable | Matrix


@dataclass(frozen=True, slots=True)
class Region:
    """A run of bytes of the file, relative to the first segment."""

    offset: int
    size: int
    content: Content


@dataclass(slots=True)
class Layout:
    """Regions, and the segments and named keys that point into them."""

    regions: list[Region] = field(default_factory=list)
    segments: list[tuple[int, int]] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    constants: list[int] = field(default_factory=list)
    constant_segment: int = -1
    size: int = 0

    def add(self, size: int, content: Content) -> int:
        """Reserve a region at the end; returns its offset."""
        offset = -(-self.size // _ALIGNMENT) * _ALIGNMENT
        self.regions.append(Region(offset, size, content))
        self.size = offset + size
        return offset

    def segment(self, size: int, content: Content) -> int:
        """Reserve a region that is a segment of its own; returns the segment's index."""
        offset = self.add(size, content)
        self.segments.append((offset, size))
        return len(self.segments) - 1

    def name(self, key: str, size: int, content: Content) -> None:
        """Reserve a named segment unless the key exists already."""
        if key not in self.named:
            self.named[key] = self.segment(size, content)

    def name_alias(self, key: str, offset: int, size: int) -> None:
        """Let a key point at bytes that another region writes."""
        self.segments.append((offset, size))
        self.named[key] = len(self.segments) - 1

    def filled(self, length: int, value: float) -> str:
        """Return the key of a float32 vector of equal numbers."""
        key = f"fill.{length}.{value!r}"
        data = struct.pack("<f", value) * length
        self.name(key, len(data), Bytes(data))
        return key

    def named_bytes(self, key: str) -> int:
        """Return the length of a named segment."""
        return self.segments[self.named[key]][1]

    def constant(self, size: int, content: Content) -> int:
        """Reserve a tensor of the constant segment; returns its buffer index (from 1)."""
        offset = self.add(size, content)
        self.constants.append(offset)
        return len(self.constants)

    def close_constants(self) -> None:
        """End the constant segment: it spans every region so far."""
        start = self.constants[0]
        self.segments.append((start, self.size - start))
        self.constant_segment = len(self.segments) - 1
