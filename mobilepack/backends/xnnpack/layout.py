"""Where every byte of a program file lies, decided before any weight is read.

The program's flatbuffer comes first, then the segments. Each region names what fills it, so that
the weights can be read, quantised and written once, in order, into their final place.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

_ALIGNMENT = 128  # bytes; XNNPACK reads weights with vector loads, 64 would do


@dataclass(frozen=True, slots=True)
class HeadRows:
    """A choice of rows within every head: `start <= row % period < stop`, every `step`-th."""

    period: int
    start: int
    stop: int
    step: int = 1

    def count(self, rows: int) -> int:
        """Return how many of `rows` rows are chosen."""
        return rows // self.period * len(range(self.start, self.stop, self.step))


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
class Transposed:
    """A small matrix parameter in float32, its columns written as rows."""

    parameter: str


@dataclass(frozen=True, slots=True)
class Padded:
    """A small matrix parameter in float32, its rows filled up with zeros to `width`."""

    parameter: str
    width: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table of `models/tables.py`, float32."""

    name: str


@dataclass(frozen=True, slots=True)
class Positions:
    """Rows of the table of learned positions, float32, from `start` on."""

    parameter: str
    start: int
    count: int


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


Content = Bytes | Vector | Transposed | Padded | Table | Positions | Matrix


@dataclass(frozen=True, slots=True)
class Region:
    """A run of bytes of the file, relative to the first segment."""

    offset: int
    size: int
    content: Content


@dataclass(frozen=True, slots=True)
class FileMap:
    """Where everything lies.

    Attributes:
        regions: All content, in the order of the file.
        segments: (offset, size) of each; two may name the same bytes.
        named: Keys of segments, by their index.
        constants: Offset of each tensor of the constant segment.
        constant_segment: Index of the segment that spans them.
        size: Bytes from the first segment to the end of the file.
    """

    regions: tuple[Region, ...]
    segments: tuple[tuple[int, int], ...]
    named: Mapping[str, int]
    constants: tuple[int, ...]
    constant_segment: int
    size: int


class Layout:
    """Content under collection; `place` says where it lies: constants first, then segments."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, Content]] = []
        self._segments: list[int] = []
        self._named: dict[str, int] = {}
        self._constants: list[int] = []
        self._kept: dict[str, int] = {}

    def segment(self, size: int, content: Content) -> int:
        """Reserve a segment; returns its index."""
        return self._segment(self._add(size, content))

    def name(self, key: str, size: int, content: Content) -> None:
        """Reserve a named segment unless the key exists already."""
        if key not in self._named:
            self._named[key] = self.segment(size, content)

    def name_alias(self, key: str, constant: int) -> None:
        """Let a key name the bytes of a constant."""
        self._named[key] = self._segment(self._constants[constant - 1])

    def has(self, key: str) -> bool:
        """Tell whether a named segment or a kept constant has that key."""
        return key in self._named or key in self._kept

    def named_bytes(self, key: str) -> int:
        """Return the length of a named segment."""
        return self._parts[self._segments[self._named[key]]][0]

    def constant(self, size: int, content: Content) -> int:
        """Reserve a tensor of the constant segment; returns its buffer index (from 1)."""
        self._constants.append(self._add(size, content))
        return len(self._constants)

    def keep(self, key: str, size: int, content: Content) -> int:
        """Reserve a keyed tensor of the constant segment, once; returns its buffer index."""
        if key not in self._kept:
            self._kept[key] = self.constant(size, content)
        return self._kept[key]

    def place(self) -> FileMap:
        """Give every part its offset."""
        chosen = set(self._constants)
        order = [*self._constants, *(i for i in range(len(self._parts)) if i not in chosen)]
        regions: dict[int, Region] = {}
        end = 0
        for part in order:
            size, content = self._parts[part]
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            regions[part] = Region(start, size, content)
            end = start + size
        segments = [(regions[part].offset, regions[part].size) for part in self._segments]
        constants = [regions[part] for part in self._constants]
        last = max((region.offset + region.size for region in constants), default=0)
        return FileMap(
            regions=tuple(regions.values()),
            segments=(*segments, (0, last)),
            named=dict(self._named),
            constants=tuple(region.offset for region in constants),
            constant_segment=len(segments),
            size=end,
        )

    def _add(self, size: int, content: Content) -> int:
        self._parts.append((size, content))
        return len(self._parts) - 1

    def _segment(self, part: int) -> int:
        self._segments.append(part)
        return len(self._segments) - 1


def filled(length: int, value: float) -> tuple[str, int, Bytes]:
    """Return key, bytes and content of a float32 vector of equal numbers."""
    return f"fill.{length}.{value!r}", 4 * length, Bytes(struct.pack("<f", value) * length)
