"""The parts of a mixture of experts that lie inside segments: routers, and the sum at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobilepack.models import ops_moe as _ops_moe  # noqa: F401  registers the operators
from mobilepack.models.graph import arguments

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.rules import Rule
    from mobilepack.backends.xnnpack.segments import Segment, SegmentBuilder


def small_linear(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Multiply by a matrix that stays in float32."""
    x, weight = arguments(node)
    value = builder.plain(segment, x)
    return builder.storage.small_linear(segment.graph, value, builder.parameter(weight), out)


def combine(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Sum the experts' results with their weights: a product `[1, count] @ [count, hidden]`."""
    results, factors = (builder.plain(segment, argument) for argument in arguments(node))
    graph = segment.graph
    *lead, count, hidden = graph.shape(results)
    free = [1, 0] if len(lead) == 2 else lead
    rows = graph.reshape(factors, [*free, 1, count], [*lead, 1, count])
    total = graph.matmul(rows, results)
    return graph.reshape(total, [*free, hidden], [*lead, hidden], out)


_OURS = torch.ops.mobilepack

MOE_RULES: dict[object, Rule] = {
    _OURS.small_linear.default: small_linear,
    _OURS.combine.default: combine,
}
