"""Operators on blocks of channels inside segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.models import ops_blocks as _ops_blocks  # noqa: F401  registers the operators
from mobilepack.models.graph import arguments

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.rules import Rule
    from mobilepack.backends.xnnpack.segments import Segment, SegmentBuilder


def block_linear(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Multiply every block of channels by its own matrix: one batched product."""
    x, weight, bias, blocks, transposed = arguments(node)
    graph, value, storage = segment.graph, builder.plain(segment, x), builder.storage
    *lead, width = graph.shape(value)
    tokens, name = lead[-1], builder.parameter(weight)
    matrices = storage.blocks(graph, name, blocks, width // blocks if transposed else None)
    columns = graph.shape(matrices)[1 if transposed else 2] * blocks
    split = graph.reshape(value, [0, blocks, width // blocks], [tokens, blocks, width // blocks])
    mixed = graph.matmul(graph.transpose(split, [1, 0, 2]), matrices, transposed=transposed)
    free = [1, 0] if len(lead) == 2 else lead
    last = out if bias is None else None
    joined = graph.transpose(mixed, [1, 0, 2])
    flat = graph.reshape(joined, [*free, columns], [*lead, columns], last)
    if bias is None:
        return flat
    return graph.binary("add", flat, storage.operand(graph, builder.parameter(bias)), out)


def join_heads(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Join two tensors head by head."""
    first, second, heads = arguments(node)
    graph = segment.graph
    parts = [_by_head(graph, builder.plain(segment, part), heads) for part in (first, second)]
    joined = graph.concatenate(parts, 3)
    _, tokens, _, width = graph.shape(joined)
    return graph.reshape(joined, [1, 0, heads * width], [1, tokens, heads * width], out)


def _by_head(graph: Graph, value: int, heads: int) -> int:
    shape = graph.shape(value)
    if len(shape) == 4:  # what a rotation makes
        return value
    width = shape[-1] // heads
    return graph.reshape(value, [1, 0, heads, width], [1, shape[1], heads, width])


_OURS = torch.ops.mobilepack

BLOCK_RULES: dict[object, Rule] = {
    _OURS.block_linear.default: block_linear,
    _OURS.join_heads.default: join_heads,
}
