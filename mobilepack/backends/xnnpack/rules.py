"""How each operator of the exported decoder is written in XNNPACK's operators.

How it is written decides the speed; the reasons stand beside the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mobilepack.backends.xnnpack.graph import Binary, Graph, Unary
from mobilepack.backends.xnnpack.operands import Parts, UnknownGraphError, rotation_of
from mobilepack.backends.xnnpack.rules_blocks import BLOCK_RULES
from mobilepack.backends.xnnpack.rules_moe import MOE_RULES
from mobilepack.backends.xnnpack.rules_norm import head_norm, layer_norm, rms_norm
from mobilepack.backends.xnnpack.rules_recurrent import RECURRENT_RULES
from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.graph import arguments
from mobilepack.models.operators import GELU_CUBIC

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.segments import Segment, SegmentBuilder

Rule = Callable[["SegmentBuilder", "Segment", "Node", "int | None"], "int | Parts"]


def _binary(kind: Binary) -> Rule:
    def rule(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
        a, b = arguments(node)[:2]
        left, graph = builder.plain(segment, a), segment.graph
        if not isinstance(b, torch.fx.Node):
            if kind != "multiply":
                raise UnknownGraphError(f"{node} has a number")
            return graph.scaled(left, float(b), out)
        return graph.binary(kind, left, builder.plain(segment, b), out)

    return rule


def _unary(kind: Unary) -> Rule:
    def rule(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
        return segment.graph.unary(kind, builder.plain(segment, arguments(node)[0]), out)

    return rule


def _silu(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    x = builder.plain(segment, arguments(node)[0])
    return segment.graph.binary("multiply", x, segment.graph.unary("sigmoid", x), out)


def _relu(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    x = builder.plain(segment, arguments(node)[0])
    return segment.graph.clamp(x, 0.0, math.inf, out)


def _clamp(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int | Parts:
    x, low, high = arguments(node)
    value, graph = builder.value(segment, x), segment.graph
    if isinstance(value, Parts):
        clamped = tuple(graph.clamp(part, float(low), float(high)) for part in value.values)
        return Parts(clamped, value.rows)
    return graph.clamp(value, float(low), float(high), out)


def _gelu(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    x, graph = builder.plain(segment, arguments(node)[0]), segment.graph
    if node.kwargs.get("approximate", "none") != "tanh":
        return graph.unary("gelu", x, out)
    # Written out: ExecuTorch's schema (1.5.1) has no tanh form, and XNNGelu is the erf form.
    cubic = graph.scaled(graph.binary("multiply", graph.unary("square", x), x), GELU_CUBIC)
    inner = graph.scaled(graph.binary("add", x, cubic), math.sqrt(2 / math.pi))
    half = graph.scaled(x, 0.5)
    return graph.binary(
        "add", half, graph.binary("multiply", half, graph.unary("tanh", inner)), out
    )


def _linear(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int | Parts:
    x, *parameters = (argument for argument in arguments(node) if argument is not None)
    weight, bias = (*(builder.parameter(p) for p in parameters), None)[:2]
    if weight is None:
        raise UnknownGraphError(f"{node} has no weight")
    value, storage = builder.plain(segment, x), builder.storage
    rotation = rotation_of(node)
    if rotation is None:
        return storage.linear(segment.graph, value, weight, bias, None, out)
    parts = []
    for rows in rotation.rows:
        flat = storage.linear(segment.graph, value, weight, bias, rows, None)
        parts.append(_by_head(segment.graph, flat, rotation.heads))
    return Parts(tuple(parts), rotation.rows)


def _by_head(graph: Graph, flat: int, heads: int) -> int:
    _, sequence, channels = graph.shape(flat)
    width = channels // heads
    return graph.reshape(flat, [1, 0, heads, width], [1, sequence, heads, width])


def _rope(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    x, cos_table, sin_table, *_ = arguments(node)
    value, graph = builder.value(segment, x), segment.graph
    if not isinstance(value, Parts):
        raise UnknownGraphError(f"{x} is not in the parts of a rotation")
    first, second, *rest = value.values
    width = graph.shape(first)[-1]
    cos, sin = (
        builder.shared(segment, builder.parameter(table), (1, width))
        for table in (cos_table, sin_table)
    )
    turned_first = graph.binary(
        "subtract", graph.binary("multiply", first, cos), graph.binary("multiply", second, sin)
    )
    turned_second = graph.binary(
        "add", graph.binary("multiply", second, cos), graph.binary("multiply", first, sin)
    )
    return graph.concatenate([turned_first, turned_second, *rest], 3, out)


def _positions(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    if out is not None:
        raise UnknownGraphError(f"{node} is needed outside its segment")
    _, table, _, _ = arguments(node)
    channels = int(node.meta["val"].shape[-1])
    return builder.shared(segment, builder.parameter(table), (channels,))


_OURS, _ATEN = torch.ops.mobilepack, torch.ops.aten

ROPE = _OURS.rope.default
RULES: dict[object, Rule] = {
    _ATEN.linear.default: _linear,
    _ATEN.add.Tensor: _binary("add"),
    _ATEN.mul.Tensor: _binary("multiply"),
    _ATEN.silu.default: _silu,
    _ATEN.relu.default: _relu,
    _ATEN.gelu.default: _gelu,
    _ATEN.tanh.default: _unary("tanh"),
    _ATEN.sigmoid.default: _unary("sigmoid"),
    _ATEN.clamp.default: _clamp,
    _OURS.rms_norm.default: rms_norm,
    _OURS.layer_norm.default: layer_norm,
    _OURS.head_norm.default: head_norm,
    _OURS.positions.default: _positions,
    ROPE: _rope,
    **MOE_RULES,
    **RECURRENT_RULES,
    **BLOCK_RULES,
}
