"""Turn the exported decoder into XNNPACK segments: all that lies between two attentions is one.

A segment is one delegate. Inside it the composite operators become XNNPACK operators; what the
delegate cannot do (the embedding, the cache, the last-token choice) are the barriers between
segments. How each operator is written decides the speed; the reasons stand beside the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mobilepack.backends.xnnpack.cache import CacheFormat, Operand, Role, Shape
from mobilepack.backends.xnnpack.graph import Binary, Element, Graph
from mobilepack.backends.xnnpack.storage import Storage
from mobilepack.models.graph import arguments, fixed, shape
from mobilepack.models.operators import GELU_CUBIC

if TYPE_CHECKING:
    from torch.fx import Node


class UnknownGraphError(Exception):
    """The graph holds something this lowering has no rule for."""


@dataclass(frozen=True, slots=True)
class Halves:
    """A tensor kept as the two halves that a rotation pairs, each `[1, seq, heads, half]`."""

    first: int
    second: int


@dataclass(slots=True)
class Segment:
    """One delegate under construction.

    Attributes:
        externals: What to pass at a call, in order: exported nodes, or names of shared tensors.
    """

    graph: Graph
    externals: list[Node | str] = field(default_factory=list)
    values: dict[Node, int | Halves] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)


class SegmentBuilder:
    """Adds exported nodes to a segment, one rule per operator."""

    def __init__(
        self,
        storage: Storage,
        parameters: Mapping[str, str],
        sequence: int,
        cache: CacheFormat,
        needed_outside: Callable[[Node], bool],
    ) -> None:
        """Create the builder.

        Args:
            storage: Gives parameters their place and format.
            parameters: Parameter name of each placeholder.
            sequence: Longest `seq` of a call.
            cache: Form of attention's operands.
            needed_outside: Whether a node's value leaves its segment.
        """
        self._storage = storage
        self._parameters = parameters
        self._sequence = sequence
        self._format = cache
        self._needed_outside = needed_outside
        mobilepack, aten = torch.ops.mobilepack, torch.ops.aten
        self._rules: dict[object, Callable[[Segment, Node, int | None], int | Halves]] = {
            aten.linear.default: self._linear,
            aten.add.Tensor: self._binary("add"),
            aten.mul.Tensor: self._binary("multiply"),
            aten.silu.default: self._silu,
            aten.relu.default: self._relu,
            aten.gelu.default: self._gelu,
            mobilepack.rms_norm.default: self._rms_norm,
            mobilepack.head_norm.default: self._head_norm,
            mobilepack.rope.default: self._rope,
        }

    def start(self) -> Segment:
        """Return an empty segment."""
        return Segment(Graph(self._storage.layout))

    def knows(self, node: Node) -> bool:
        """Return whether a rule exists for the node's operator."""
        return node.target in self._rules

    def add(self, segment: Segment, node: Node) -> None:
        """Add one node.

        Raises:
            UnknownGraphError: The operator, or the way it is used, has no rule.
        """
        rule = self._rules.get(node.target)
        if rule is None:
            raise UnknownGraphError(f"no rule for {node.target}")
        operand = attention_operand(node)
        fits = operand is None or (node.target is _ROPE and self._format.rotated_fits)
        direct = self._needed_outside(node) and fits
        out = self._output(segment, node) if direct else None
        value = rule(segment, node, out)
        segment.values[node] = value
        if operand is not None and not direct:
            out = self._output(segment, node)
            self._format.deliver(segment.graph, _single(value, node), operand, out)

    def host_tensor(self, node: Node) -> tuple[tuple[int, ...], Element]:
        """Return the bound and the element type of a node's value outside the delegates.

        What attention takes has the cache's form; what it gives has an axis of heads.
        """
        operand = attention_operand(node)
        if operand is not None:
            return self._format.tensor(operand, self._sequence)
        bound, result = self._bounds(node), attention_result(node)
        if result is None:
            return bound, "float32"
        return (*bound[:-1], result.heads, result.head_dim), "float32"

    def _bounds(self, node: Node) -> tuple[int, ...]:
        return tuple(s if isinstance(s, int) else self._sequence for s in shape(node))

    def _output(self, segment: Segment, node: Node) -> int:
        segment.externals.append(node)
        return segment.graph.output(*self.host_tensor(node))

    def _value(self, segment: Segment, node: Node) -> int | Halves:
        if node not in segment.values:
            (outside, element), flat = self.host_tensor(node), self._bounds(node)
            value = segment.graph.input(outside, element)
            segment.externals.append(node)
            if flat != outside:
                dims = [1, 0, flat[-1]] if len(flat) == 3 else list(flat)
                value = segment.graph.reshape(value, dims, flat)
            segment.values[node] = value
        return segment.values[node]

    def _plain(self, segment: Segment, node: Node) -> int:
        return _single(self._value(segment, node), node)

    def _shared(self, segment: Segment, name: str, width: int) -> int:
        """Return the slice of a rotary table for this call, as `[1, seq, 1, width]`."""
        if name not in segment.shared:
            value = segment.graph.input((self._sequence, width))
            segment.externals.append(name)
            segment.shared[name] = segment.graph.reshape(
                value, [1, 0, 1, width], [1, self._sequence, 1, width]
            )
        return segment.shared[name]

    # --- rules ---

    def _binary(self, kind: Binary) -> Callable[[Segment, Node, int | None], int | Halves]:
        def rule(segment: Segment, node: Node, out: int | None) -> int:
            a, b = (self._plain(segment, argument) for argument in arguments(node)[:2])
            return segment.graph.binary(kind, a, b, out)

        return rule

    def _silu(self, segment: Segment, node: Node, out: int | None) -> int:
        x = self._plain(segment, arguments(node)[0])
        return segment.graph.binary("multiply", x, segment.graph.unary("sigmoid", x), out)

    def _relu(self, segment: Segment, node: Node, out: int | None) -> int:
        x = self._plain(segment, arguments(node)[0])
        return segment.graph.clamp(x, 0.0, math.inf, out)

    def _gelu(self, segment: Segment, node: Node, out: int | None) -> int:
        x, graph = self._plain(segment, arguments(node)[0]), segment.graph
        if node.kwargs.get("approximate", "none") != "tanh":
            return graph.unary("gelu", x, out)

        cubic = graph.scaled(graph.binary("multiply", graph.unary("square", x), x), GELU_CUBIC)
        inner = graph.scaled(graph.binary("add", x, cubic), math.sqrt(2 / math.pi))
        half = graph.scaled(x, 0.5)
        return graph.binary(
            "add", half, graph.binary("multiply", half, graph.unary("tanh", inner)), out
        )

    def _rms_norm(self, segment: Segment, node: Node, out: int | None) -> int:
        x, weight, eps = arguments(node)
        graph, value = segment.graph, self._plain(segment, x)
        channels = graph.shape(value)[-1]
        mean = self._mean_square(graph, value, channels, float(eps))
        scaled = graph.binary("multiply", value, graph.unary("rsqrt", mean))
        factors = self._storage.operand(graph, self._parameters[weight.name])
        return graph.binary("multiply", scaled, factors, out)

    def _mean_square(self, graph: Graph, value: int, channels: int, eps: float | None) -> int:
        """Return sum(value^2) / channels + eps over the last axis.

        A mean would leave the delegate (XNNPACK 1.5.1 has no dynamic reduce in ExecuTorch's
        schema that keeps the rank), so it is a linear map with weights 1 / channels, eps as bias.
        """
        width = graph.shape(value)[-1]
        ones = graph.packed(graph.fill(width, 1.0 / channels), [1, width])
        bias = None if eps is None else graph.packed(graph.fill(1, eps), [1])
        return graph.linear(graph.unary("square", value), ones, bias)

    def _linear(self, segment: Segment, node: Node, out: int | None) -> int | Halves:
        x, *parameters = (argument for argument in arguments(node) if argument is not None)
        weight, bias = (*(self._parameters[p.name] for p in parameters), None)[:2]
        if weight is None:
            raise UnknownGraphError(f"{node} has no weight")
        value = self._plain(segment, x)
        rotation = rotation_of(node)
        if rotation is None:
            return self._storage.linear(segment.graph, value, weight, bias, None, out)
        heads, half, head_dim = rotation
        parts = []
        for rows in self._storage.halves(head_dim, half):
            flat = self._storage.linear(segment.graph, value, weight, bias, rows, None)
            bound = [1, self._sequence, heads, half]
            parts.append(segment.graph.reshape(flat, [1, 0, heads, half], bound))
        return Halves(*parts)

    def _head_norm(self, segment: Segment, node: Node, out: int | None) -> Halves:
        x, weight, _, eps = arguments(node)
        halves = self._halves(segment, x)
        graph, half = segment.graph, segment.graph.shape(halves.first)[-1]
        first = self._mean_square(graph, halves.first, 2 * half, float(eps))
        second = self._mean_square(graph, halves.second, 2 * half, None)
        inverse = graph.unary("rsqrt", graph.binary("add", first, second))
        parts = []
        for value, rows in zip(
            (halves.first, halves.second), self._storage.halves(2 * half, half), strict=True
        ):
            factors = self._storage.operand(graph, self._parameters[weight.name], rows)
            scaled = graph.binary("multiply", value, inverse)
            parts.append(graph.binary("multiply", scaled, factors))
        return Halves(*parts)

    def _rope(self, segment: Segment, node: Node, out: int | None) -> int:
        halves, graph = self._halves(segment, arguments(node)[0]), segment.graph
        width = graph.shape(halves.first)[-1]
        cos, sin = (self._shared(segment, name, width) for name in ("cos", "sin"))
        first = graph.binary(
            "subtract",
            graph.binary("multiply", halves.first, cos),
            graph.binary("multiply", halves.second, sin),
        )
        second = graph.binary(
            "add",
            graph.binary("multiply", halves.second, cos),
            graph.binary("multiply", halves.first, sin),
        )
        return graph.concatenate(first, second, 3, out)

    def _halves(self, segment: Segment, node: Node) -> Halves:
        value = self._value(segment, node)
        if not isinstance(value, Halves):
            raise UnknownGraphError(f"{node} is not split into the halves of a rotation")
        return value


_ROPE = torch.ops.mobilepack.rope.default
_HEAD_NORM = torch.ops.mobilepack.head_norm.default
_ATTENTION = torch.ops.mobilepack.attention.default


def _single(value: int | Halves, node: Node) -> int:
    if isinstance(value, Halves):
        raise UnknownGraphError(f"{node} is split into halves but used whole")
    return value


def rotation_of(linear: Node) -> tuple[int, int, int] | None:
    """Return (heads, half, head_dim) if a linear map's result is only ever rotated.

    Such a map is done as two, one for each half of every head's rows: XNNPACK has no cheap slice,
    and rows of a weight matrix can be sorted for free while they are written.
    """
    node = linear
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is _ROPE:
            _, cos, _, _, heads = arguments(user)
            half, head_dim = fixed(cos, 1), fixed(linear, -1) // heads
            if 2 * half != head_dim:
                raise UnknownGraphError("partial rotation")
            return heads, half, head_dim
        if user.target is not _HEAD_NORM:
            return None
        node = user
    return None


def attention_shape(attention: Node) -> Shape:
    """Return what decides an attention's graph."""
    query, _, _, key_cache, _, _, scale, window = arguments(attention)
    limit, kv_heads, head_dim = (fixed(key_cache, axis) for axis in (1, 2, 3))
    return Shape(
        heads=fixed(query, -1) // head_dim,
        kv_heads=kv_heads,
        head_dim=head_dim,
        scale=float(scale),
        window=0 if window >= limit else int(window),
    )


def attention_operand(node: Node) -> Operand | None:
    """Return what a node is to the attention that takes it as query, key or value."""
    roles: tuple[Role, ...] = ("query", "key", "value")
    for user in node.users:
        if user.target is _ATTENTION and node in arguments(user)[:3]:
            return Operand(roles[arguments(user).index(node)], attention_shape(user))
    return None


def attention_result(node: Node) -> Shape | None:
    """Return the attention whose result a node is, whole or its last token."""
    if node.target is torch.ops.mobilepack.last_token.default:
        return attention_result(arguments(node)[0])
    return attention_shape(node) if node.target is _ATTENTION else None
