"""Give each parameter its place in the file and its format, and write the maps that use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import HeadRows, Layout, Matrix, Vector
from mobilepack.models.quantization import linear_encoding


@dataclass(slots=True)
class Tally:
    """Parameters and bytes stored per format, each parameter counted once."""

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, label: str, parameters: int, size: int) -> None:
        """Count parameters of one format and the bytes they take with their scales."""
        old_parameters, old_size = self.rows.get(label, (0, 0))
        self.rows[label] = old_parameters + parameters, old_size + size


class Storage:
    """Parameters of one program: where they lie and in which format."""

    def __init__(
        self, layout: Layout, shapes: Mapping[str, tuple[int, ...]], quantised: bool, group: int
    ) -> None:
        """Create the store.

        Args:
            layout: The file's layout, filled as parameters are asked for.
            shapes: Every parameter's shape.
            quantised: Whether linear maps are 8da4w.
            group: Columns per scale.
        """
        self.layout = layout
        self.tally = Tally()
        self._shapes = shapes
        self._quantised = quantised
        self._group = group
        self._aliases: dict[str, tuple[int, int]] = {}

    def alias(self, parameter: str, offset: int, size: int) -> None:
        """Say that a float32 parameter's bytes are written by another region."""
        self._aliases[parameter] = (offset, size)

    def vector(self, parameter: str, rows: HeadRows | None = None) -> str:
        """Return the key of a one-dimensional parameter, stored in float32."""
        key = parameter + _suffix(rows)
        (length,) = self._shapes[parameter]
        length = length if rows is None else rows.count(length)
        if key not in self.layout.named:
            self.tally.add("fp32", length, 4 * length)
        self.layout.name(key, 4 * length, Vector(parameter, rows))
        return key

    @staticmethod
    def halves(head_dim: int, half: int) -> tuple[HeadRows, HeadRows]:
        """Return the rows of the first and the second half of each head's rotated channels."""
        return HeadRows(head_dim, 0, half), HeadRows(head_dim, half, 2 * half)

    def linear(
        self,
        graph: Graph,
        value: int,
        weight: str,
        bias: str | None,
        rows: HeadRows | None,
        out: int | None,
    ) -> int:
        """Add `value @ weight.T + bias` in this program's format; `rows` picks output channels."""
        count, columns = self._shapes[weight]
        count = count if rows is None else rows.count(count)
        bias_value = None
        if bias is not None:
            bias_value = graph.constant(self.vector(bias, rows), [count])
        key = weight + _suffix(rows)
        if not self._quantised:
            self._matrix(key, weight, rows, (count, columns), ("fp32", 0))
            return graph.linear(value, graph.constant(key, [count, columns]), bias_value, out)
        encoding, group = linear_encoding(columns, self._group)
        self._matrix(key, weight, rows, (count, columns), (encoding, group))
        if encoding == "int4":
            weights = graph.int4_weights(key, (count, columns), group)
        else:
            weights = graph.int8_weights(key, (count, columns))
        return graph.linear(graph.dynamic_int8(value), weights, bias_value, out)

    def _matrix(
        self,
        key: str,
        weight: str,
        rows: HeadRows | None,
        shape: tuple[int, int],
        coding: tuple[str, int],
    ) -> None:
        if key in self.layout.named:
            return
        encoding, group = coding
        parameters = shape[0] * shape[1]
        if encoding == "fp32" and weight in self._aliases:
            self.layout.name_alias(key, *self._aliases[weight])
            return
        size = {"fp32": 4 * parameters, "int8": parameters, "int4": parameters // 2}[encoding]
        self.layout.name(key, size, Matrix(weight, encoding, group, "values", rows))
        scales = 0
        if encoding != "fp32":
            scales = parameters // group * (2 if encoding == "int4" else 4)
            content = Matrix(weight, encoding, group, "scales", rows)
            self.layout.name(key + ".scales", scales, content)
        label = encoding if encoding == "fp32" else f"{encoding} group {group}"
        label = "int8 per row" if encoding == "int8" else label
        self.tally.add(label, parameters, size + scales)


def _suffix(rows: HeadRows | None) -> str:
    return "" if rows is None else f"[{rows.start}:{rows.stop}/{rows.period}]"
