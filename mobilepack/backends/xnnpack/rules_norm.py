"""Norms in XNNPACK's operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mobilepack.backends.xnnpack.graph import Binary, Graph
from mobilepack.backends.xnnpack.layout import HeadRows
from mobilepack.backends.xnnpack.operands import Parts
from mobilepack.models.graph import arguments

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.segments import Segment, SegmentBuilder


def rms_norm(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Divide by the root mean square, multiply by the weight."""
    x, weight, eps = arguments(node)
    return _whole_norm(builder, segment, (x, weight, None), (float(eps), False), out)


def layer_norm(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Remove the mean, divide by the standard deviation, scale and shift."""
    x, weight, bias, eps = arguments(node)
    return _whole_norm(builder, segment, (x, weight, bias), (float(eps), True), out)


def _whole_norm(
    builder: SegmentBuilder,
    segment: Segment,
    operands: tuple[Node, Node | None, Node | None],
    norm: tuple[float, bool],
    out: int | None,
) -> int:
    x, weight, bias = operands
    graph, value = segment.graph, builder.plain(segment, x)
    last = None if weight is not None or bias is not None else out
    (value,) = normalised(graph, [value], *norm, last)
    if weight is not None:
        factors = builder.storage.operand(graph, builder.parameter(weight))
        value = graph.binary("multiply", value, factors, out if bias is None else None)
    if bias is not None:
        value = graph.binary(
            "add", value, builder.storage.operand(graph, builder.parameter(bias)), out
        )
    return value


def head_norm(
    builder: SegmentBuilder, segment: Segment, node: Node, out: int | None
) -> int | Parts:
    """Normalise queries or keys, in the parts of a rotation or whole."""
    x, weight, bias, groups, eps, centred = arguments(node)
    graph, value = segment.graph, builder.value(segment, x)
    rows: tuple[HeadRows | None, ...] = value.rows if isinstance(value, Parts) else (None,)
    parts = value.values if isinstance(value, Parts) else (value,)
    heads = graph.shape(parts[0])[2] if isinstance(value, Parts) else 0
    each = normalised(
        graph, [_in_groups(graph, part, groups) for part in parts], float(eps), bool(centred)
    )
    kinds: tuple[Binary, Binary] = ("multiply", "add")
    for kind, parameter in zip(kinds, (weight, bias), strict=True):
        if parameter is not None:
            name = builder.parameter(parameter)
            vectors = [builder.storage.operand(graph, name, row) for row in rows]
            each = [
                _along_channels(graph, kind, part, vector)
                for part, vector in zip(each, vectors, strict=True)
            ]
    if not isinstance(value, Parts):
        return _flat(graph, each[0], out)
    return Parts(tuple(_in_groups(graph, part, heads) for part in each), value.rows)


def normalised(
    graph: Graph, values: Sequence[int], eps: float, centred: bool, out: int | None = None
) -> list[int]:
    """Normalise the last axis of one value, or of several that are parts of one axis."""
    channels = sum(graph.shape(value)[-1] for value in values)
    if centred:
        mean = _sum(graph, [_mean(graph, value, channels) for value in values])
        values = [graph.binary("subtract", value, mean) for value in values]
    squares = [graph.unary("square", value) for value in values]
    first, *others = squares
    mean = _sum(
        graph,
        [_mean(graph, first, channels, eps), *(_mean(graph, value, channels) for value in others)],
    )
    inverse = graph.unary("rsqrt", mean)
    return [graph.binary("multiply", value, inverse, out) for value in values]


def _mean(graph: Graph, value: int, channels: int, bias: float | None = None) -> int:
    """Return sum(value) / channels + bias over the last axis.

    A mean would leave the delegate (ExecuTorch's schema, 1.5.1, has no dynamic reduce that keeps
    the rank), so it is a linear map with weights 1 / channels.
    """
    width = graph.shape(value)[-1]
    ones = graph.packed(graph.fill(width, 1.0 / channels), [1, width])
    added = None if bias is None else graph.packed(graph.fill(1, bias), [1])
    return graph.linear(value, ones, added)


def _sum(graph: Graph, values: Sequence[int]) -> int:
    total, *others = values
    for value in others:
        total = graph.binary("add", total, value)
    return total


def _along_channels(graph: Graph, kind: Binary, value: int, vector: int) -> int:
    """Apply a vector that is as long as the last axis, or as all channels of `value`."""
    shape = graph.shape(value)
    if graph.shape(vector)[-1] == shape[-1]:
        return graph.binary(kind, value, vector)
    return _in_groups(graph, graph.binary(kind, _flat(graph, value), vector), shape[2])


def _flat(graph: Graph, value: int, out: int | None = None) -> int:
    """Return `[1, seq, groups, width]` as `[1, seq, groups * width]`."""
    shape = graph.shape(value)
    if len(shape) == 3 and out is None:
        return value
    channels = math.prod(shape[2:])
    return graph.reshape(value, [1, 0, channels], [1, shape[1], channels], out)


def _in_groups(graph: Graph, value: int, groups: int) -> int:
    """Return a value with an axis of so many groups of channels; without one for a single group."""
    shape = graph.shape(value)
    if groups == 1:
        return _flat(graph, value)
    if len(shape) == 4 and shape[2] == groups:
        return value
    width = math.prod(shape[2:]) // groups
    return graph.reshape(value, [1, 0, groups, width], [1, shape[1], groups, width])
