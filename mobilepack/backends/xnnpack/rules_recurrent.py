"""The parts of mixers with a state that lie inside segments: convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mobilepack.models import ops_recurrent as _ops  # noqa: F401  registers the operators
from mobilepack.models.graph import arguments

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.rules import Rule
    from mobilepack.backends.xnnpack.segments import Segment, SegmentBuilder


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens that a convolution sees in one call.

    Attributes:
        state: Name of the tensor `[1, before, channels]` that holds those of earlier calls; the
            segment reads it.
        name: Of the tensor `[1, before + seq, channels]` that holds all of them; the segment
            writes it, and its end is the next call's state.
        bound: Largest `seq`.
    """

    state: str
    name: str
    before: int
    bound: int
    channels: int


def causal_conv(builder: SegmentBuilder, segment: Segment, node: Node, out: int | None) -> int:
    """Convolve along the tokens: an image one channel wide, with a filter for each channel."""
    x, weight, bias, state, _ = arguments(node)
    graph, value, storage = segment.graph, builder.plain(segment, x), builder.storage
    _, bound, channels = graph.shape(value)
    name, taps = builder.parameter(state), storage.taps(builder.parameter(weight))
    window = Window(name, f"{name}.window", taps - 1, bound, channels)
    before = graph.input([1, window.before, channels])
    whole = graph.output([1, window.before + bound, channels])
    segment.externals += [window.state, window.name]
    segment.windows.append(window)
    graph.concatenate([before, value], 1, whole)
    image = graph.reshape(whole, [1, 0, 1, channels], [1, window.before + bound, 1, channels])
    vector = None if bias is None else builder.parameter(bias)
    filters = storage.filters(graph, builder.parameter(weight), vector)
    convolved = graph.depthwise(image, *filters, [1, bound, 1, channels])
    return graph.reshape(convolved, [1, 0, channels], [1, bound, channels], out)


_OURS = torch.ops.mobilepack

RECURRENT_RULES: dict[object, Rule] = {
    _OURS.causal_conv.default: causal_conv,
}
