"""Weights of a package: encoded while they are read, stored once, named in every function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from mobilepack.backends.coreml.encode import palette, rounded
from mobilepack.backends.coreml.values import Graph, Value, half
from mobilepack.mil.types import DType, TensorType
from mobilepack.mil.weight_writer import WeightWriter, packed_nibbles
from mobilepack.mil.writer import Blob
from mobilepack.models.encodings import CoremlEncoding

CHUNK_ELEMENTS = 1 << 21
_BLOCKWISE = "CoreML8"  # the opset whose compressed constants take scales of any axis


class Source(Protocol):
    """Parameters by the decoder's names, in float32."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (excluded)."""

    def tensor(self, name: str) -> torch.Tensor:
        """Read a whole parameter."""

    def identity(self, name: str) -> str:
        """Return what parameters of the same numbers have in common."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` (excluded) of a parameter, and how they are stored.

    Attributes:
        group: Rows that share a table of `4p`; 0 otherwise.
    """

    parameter: str
    start: int
    stop: int
    encoding: CoremlEncoding
    group: int = 0

    @property
    def count(self) -> int:
        """Rows."""
        return self.stop - self.start

    @property
    def label(self) -> str:
        """What the program calls them; `read_label` is its inverse."""
        return f"{self.parameter.replace('.', '_')}_rows_{self.start}"


def read_label(label: str) -> tuple[str, int] | None:
    """Return the parameter, its points written as underscores, and the first row of a label."""
    name, found, start = label.partition("_rows_")
    digits = start.partition("_")[0]
    return (name, int(digits)) if found and digits.isdigit() else None


@dataclass(slots=True)
class Storage:
    """The weight file of one package.

    Attributes:
        on_bytes: Called with the bytes that were written since the last call.
    """

    writer: WeightWriter
    source: Source
    opset: str
    on_bytes: Callable[[int], None] = lambda count: None
    _blobs: dict[tuple[object, ...], dict[str, Blob]] = field(default_factory=dict)

    def matrix(self, graph: Graph, rows: Rows, trailing: int) -> Value:
        """Return rows `[count, columns, *ones]` as a constant of a function.

        Args:
            graph: The function.
            rows: Which, and how they are stored.
            trailing: Axes of one element after the columns.
        """
        columns = self.source.shape(rows.parameter)[1]
        sizes = (rows.count, columns, *(1,) * trailing)
        key = (self.source.identity(rows.parameter), rows.start, rows.stop, rows.encoding)
        if key not in self._blobs:
            before = self.writer.size
            self._blobs[key] = _ENCODERS[rows.encoding](self, rows)
            self.on_bytes(self.writer.size - before)
        blobs = self._blobs[key]
        if rows.encoding == "fp16":
            return graph.constant(rows.label, Blob(half(*sizes), blobs["data"].offset))
        kind, arguments, attributes = self._constexpr(blobs, sizes, rows)
        return graph.constexpr(kind, rows.label, half(*sizes), arguments, attributes)

    def vector(
        self, graph: Graph, name: str, values: torch.Tensor, sizes: tuple[int, ...]
    ) -> Value:
        """Return a small constant in half precision; equal names are one blob."""
        key = (name, sizes)
        if key not in self._blobs:
            data = values.reshape(sizes).half().numpy()
            self._blobs[key] = {"data": Blob(half(*sizes), self.writer.add(DType.FLOAT16, [data]))}
        return graph.constant(name.replace(".", "_"), self._blobs[key]["data"])

    def _constexpr(
        self, blobs: Mapping[str, Blob], sizes: tuple[int, ...], rows: Rows
    ) -> tuple[str, dict[str, Blob], dict[str, Blob | np.ndarray | int]]:
        data, ones = blobs["data"], (1,) * (len(sizes) - 1)
        data = Blob(TensorType(data.type.dtype, sizes), data.offset)
        if rows.encoding == "4p":
            tables = (rows.count // rows.group, *ones, 16, 1)
            lut = Blob(half(*tables), blobs["tables"].offset)
            return "constexpr_lut_to_dense", {"indices": data, "lut": lut}, {}
        if self.opset < _BLOCKWISE:
            scale = Blob(half(rows.count), blobs["scales"].offset)
            zero = Blob(TensorType(DType.INT8, (rows.count,)), blobs["zeros"].offset)
            named: dict[str, Blob | np.ndarray | int] = {
                "quantized_data": data,
                "scale": scale,
                "zero_point": zero,
                "axis": 0,
            }
            return "constexpr_affine_dequantize", {}, named
        scale = Blob(half(rows.count, *ones), blobs["scales"].offset)
        return "constexpr_blockwise_shift_scale", {"data": data, "scale": scale}, {}

    def _chunks(self, rows: Rows) -> Iterator[torch.Tensor]:
        columns = self.source.shape(rows.parameter)[1]
        step = max(1, CHUNK_ELEMENTS // columns)
        if rows.group:
            step = max(1, step // rows.group) * rows.group
        for start in range(rows.start, rows.stop, step):
            yield self.source.rows(rows.parameter, start, min(rows.stop, start + step))

    def _half(self, rows: Rows) -> dict[str, Blob]:
        pieces = (chunk.half().numpy() for chunk in self._chunks(rows))
        offset = self.writer.add(DType.FLOAT16, pieces)
        return {"data": Blob(half(rows.count), offset)}

    def _integers(self, rows: Rows) -> dict[str, Blob]:
        bits, scales = int(rows.encoding[0]), list[np.ndarray]()

        def pieces() -> Iterator[np.ndarray]:
            for chunk in self._chunks(rows):
                found = rounded(chunk, bits)
                scales.append(found.scales)
                yield found.values if bits == 8 else packed_nibbles(found.values)

        kind = DType.INT8 if bits == 8 else DType.INT4
        data = Blob(TensorType(kind, (rows.count,)), self.writer.add(kind, pieces()))
        factors = Blob(half(rows.count), self.writer.add(DType.FLOAT16, scales))
        stored = {"data": data, "scales": factors}
        if self.opset < _BLOCKWISE:
            zeros = np.zeros(rows.count, np.int8)
            kind8 = TensorType(DType.INT8, (rows.count,))
            stored["zeros"] = Blob(kind8, self.writer.add(DType.INT8, [zeros]))
        return stored

    def _palette(self, rows: Rows) -> dict[str, Blob]:
        tables = list[np.ndarray]()

        def pieces() -> Iterator[np.ndarray]:
            for chunk in self._chunks(rows):
                found = palette(chunk, rows.group)
                tables.append(found.tables)
                yield packed_nibbles(found.places)

        kind = TensorType(DType.UINT4, (rows.count,))
        data = Blob(kind, self.writer.add(DType.UINT4, pieces()))
        found = self.writer.add(DType.FLOAT16, tables)
        return {"data": data, "tables": Blob(half(rows.count), found)}


_ENCODERS: dict[str, Callable[[Storage, Rows], dict[str, Blob]]] = {
    "fp16": Storage._half,
    "8w": Storage._integers,
    "4w": Storage._integers,
    "4p": Storage._palette,
}
