"""Give each parameter its place in the file and its format, and write the maps that use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import HeadRows, Layout, Matrix, Padded, Transposed, Vector
from mobilepack.models.encodings import linear_encoding


@dataclass(slots=True)
class Tally:
    """Parameters and bytes stored per format, each parameter counted once."""

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, label: str, parameters: int, size: int) -> None:
        """Count parameters of one format and the bytes they take with their scales."""
        old_parameters, old_size = self.rows.get(label, (0, 0))
        self.rows[label] = old_parameters + parameters, old_size + size


@dataclass(frozen=True, slots=True)
class Alias:
    """How and as which constant of the layout a parameter's numbers are written already."""

    encoding: str
    group: int
    constant: int


class Storage:
    """Parameters of one program: where they lie and in which format."""

    def __init__(
        self,
        layout: Layout,
        shapes: Mapping[str, tuple[int, ...]],
        first: Mapping[str, str],
        quantised: bool,
        group: int,
    ) -> None:
        """Create the store.

        Args:
            layout: The file's layout, filled as parameters are asked for.
            shapes: Every parameter's shape.
            first: Per parameter, the one that stands for all made of the same bytes.
            quantised: Whether linear maps are 8da4w.
            group: Columns per scale.
        """
        self.layout = layout
        self.tally = Tally()
        self._shapes = shapes
        self._first = first
        self._quantised = quantised
        self._group = group
        self._aliases: dict[str, Alias] = {}

    def alias(self, parameter: str, alias: Alias) -> None:
        """Say that a parameter's numbers are written by another region."""
        self._aliases[parameter] = alias

    def operand(self, graph: Graph, parameter: str, rows: HeadRows | None = None) -> int:
        """Return a one-dimensional float32 parameter as an operand of elementwise operators."""
        parameter = self._first.get(parameter, parameter)
        key, length = self._vector(parameter, rows)
        content = Vector(parameter, rows)
        return graph.operand((key, 4 * length, content), [length])

    def _bias(self, graph: Graph, parameter: str, rows: HeadRows | None) -> int:
        parameter = self._first.get(parameter, parameter)
        key, length = self._vector(parameter, rows)
        self.layout.name(key, 4 * length, Vector(parameter, rows))
        return graph.packed(key, [length])

    def _vector(self, parameter: str, rows: HeadRows | None) -> tuple[str, int]:
        """Return key and length of a one-dimensional parameter, and count it once."""
        key = parameter + _suffix(rows)
        (length,) = self._shapes[parameter]
        length = length if rows is None else rows.count(length)
        if not self.layout.has(key):
            self.tally.add("fp32", length, 4 * length)
        return key, length

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
        weight = self._first.get(weight, weight)
        count, columns = self._shapes[weight]
        count = count if rows is None else rows.count(count)
        bias_value = None if bias is None else self._bias(graph, bias, rows)
        key = weight + _suffix(rows)
        if not self._quantised:
            self._matrix(key, weight, rows, (count, columns), ("fp32", 0))
            return graph.linear(value, graph.packed(key, [count, columns]), bias_value, out)
        encoding, group = linear_encoding(columns, self._group)
        if self._shares_int4(weight, encoding, group):
            value = _swap_pairs(graph, value)
        self._matrix(key, weight, rows, (count, columns), (encoding, group))
        if encoding == "int4":
            weights = graph.int4_weights(key, (count, columns), group)
        else:
            weights = graph.int8_weights(key, (count, columns))
        return graph.linear(graph.dynamic_int8(value), weights, bias_value, out)

    def small_linear(self, graph: Graph, value: int, weight: str, out: int | None) -> int:
        """Add `value @ weight.T` in float32, whatever the program's format."""
        weight = self._first.get(weight, weight)
        shape = (self._shapes[weight][0], self._shapes[weight][1])
        self._matrix(weight, weight, None, shape, ("fp32", 0))
        return graph.linear(value, graph.packed(weight, shape), None, out)

    def taps(self, weight: str) -> int:
        """Return how many tokens a convolution's weights `[channels, taps]` see."""
        return self._shapes[weight][1]

    def filters(self, graph: Graph, weight: str, bias: str | None) -> tuple[int, int | None]:
        """Return a convolution's filters `[1, taps, 1, channels]`, in float32, and its bias."""
        weight = self._first.get(weight, weight)
        channels, taps = self._shapes[weight]
        if not self.layout.has(weight):
            self.tally.add("fp32", channels * taps, 4 * channels * taps)
        self.layout.name(weight, 4 * channels * taps, Transposed(weight))
        added = None if bias is None else self._bias(graph, bias, None)
        return graph.packed(weight, [1, taps, 1, channels]), added

    def blocks(self, graph: Graph, weight: str, count: int, width: int | None) -> int:
        """Return matrices `[count, rows, columns]` in float32, columns filled up with zeros.

        Args:
            graph: That uses them.
            weight: `[count * rows, columns]`.
            count: How many there are.
            width: Columns to fill up to; None: none.
        """
        weight = self._first.get(weight, weight)
        rows, columns = self._shapes[weight]
        wide = width or columns
        if not self.layout.has(weight):
            self.tally.add("fp32", rows * columns, 4 * rows * wide)
        self.layout.name(weight, 4 * rows * wide, Padded(weight, wide))
        return graph.packed(weight, [count, rows // count, wide])

    def _shares_int4(self, weight: str, encoding: str, group: int) -> bool:
        """Whether an embedding table holds this weight's integers.

        The embedding kernel reads even columns from the high nibble, XNNPACK from the low one; the
        offset is 8 for both. The same bytes are the same matrix with neighbouring columns swapped.
        """
        alias = self._aliases.get(weight)
        if alias is None or encoding != "int4":
            return False
        return (alias.encoding, alias.group) == ("embedding4", group)

    def _matrix(
        self,
        key: str,
        weight: str,
        rows: HeadRows | None,
        shape: tuple[int, int],
        coding: tuple[str, int],
    ) -> None:
        if self.layout.has(key):
            return
        encoding, group = coding
        parameters = shape[0] * shape[1]
        size = {"fp32": 4 * parameters, "int8": parameters, "int4": parameters // 2}[encoding]
        alias = self._aliases.get(weight)
        shared = alias is not None and (
            alias.encoding == encoding or self._shares_int4(weight, encoding, group)
        )
        if alias is not None and shared:
            self.layout.name_alias(key, alias.constant)
            parameters, size = 0, 0  # counted where they are written
        else:
            self.layout.name(key, size, Matrix(weight, encoding, group, "values", rows))
        scales = 0
        if encoding != "fp32":
            scales = shape[0] * shape[1] // group * (2 if encoding == "int4" else 4)
            content = Matrix(weight, encoding, group, "scales", rows)
            self.layout.name(key + ".scales", scales, content)
        label = {"fp32": "fp32", "int8": "int8 per row"}.get(encoding, f"int4 group {group}")
        self.tally.add(label, parameters, size + scales)


def _swap_pairs(graph: Graph, value: int) -> int:
    """Swap channels 0 and 1, 2 and 3, and so on, of the last axis."""
    shape = graph.shape(value)
    dims = [*([1, 0] if len(shape) == 3 else shape[:-1])]
    pairs = [shape[-1] // 2, 2]
    split = graph.reshape(value, [*dims, *pairs], [*shape[:-1], *pairs])
    axis = len(shape)
    even, odd = graph.part(split, axis, 0, 1), graph.part(split, axis, 1, 1)
    return graph.reshape(graph.concatenate([odd, even], axis), [*dims, shape[-1]], shape)


def _suffix(rows: HeadRows | None) -> str:
    if rows is None:
        return ""
    step = "" if rows.step == 1 else f":{rows.step}"
    return f"[{rows.start}:{rows.stop}{step}/{rows.period}]"
