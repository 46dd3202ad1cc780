"""Turn the exported decoder into XNNPACK segments: all that lies between two attentions is one.

A segment is one delegate. Inside it the composite operators become XNNPACK operators (`rules.py`);
what the delegate cannot do (the embedding, the cache, the last-token choice) are the barriers
between segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobilepack.backends.xnnpack.cache import CacheFormat
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.operands import (
    Parts,
    UnknownGraphError,
    attention_operand,
    attention_result,
    single,
)
from mobilepack.backends.xnnpack.rules import ROPE, RULES
from mobilepack.backends.xnnpack.rules_recurrent import Window
from mobilepack.backends.xnnpack.storage import Storage
from mobilepack.backends.xnnpack.values import Element
from mobilepack.models.graph import shape

if TYPE_CHECKING:
    from torch.fx import Node


@dataclass(slots=True)
class Segment:
    """One delegate under construction.

    Attributes:
        externals: What to pass at a call, in order: exported nodes, or names of shared tensors.
        windows: What its convolutions see, in tensors among the shared ones.
        made: Nodes that are computed here; `values` has those that come in, too.
    """

    graph: Graph
    externals: list[Node | str] = field(default_factory=list)
    values: dict[Node, int | Parts] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    made: list[Node] = field(default_factory=list)


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
        self.storage = storage
        self.sequence = sequence
        self._parameters = parameters
        self._format = cache
        self._needed_outside = needed_outside

    def start(self) -> Segment:
        """Return an empty segment."""
        return Segment(Graph(self.storage.layout))

    def knows(self, node: Node) -> bool:
        """Return whether a rule exists for the node's operator."""
        return node.target in RULES

    def add(self, segment: Segment, node: Node) -> None:
        """Add one node.

        Raises:
            UnknownGraphError: The operator, or the way it is used, has no rule.
        """
        rule = RULES.get(node.target)
        if rule is None:
            raise UnknownGraphError(f"no rule for {node.target}")
        operand = attention_operand(node)
        fits = operand is None or (node.target is ROPE and self._format.rotated_fits)
        direct = self._needed_outside(node) and fits
        out = self._output(segment, node) if direct else None
        value = rule(self, segment, node, out)
        segment.values[node] = value
        segment.made.append(node)
        if operand is not None and not direct:
            out = self._output(segment, node)
            self._format.deliver(segment.graph, single(value, node), operand, out)

    def host_tensor(self, node: Node) -> tuple[tuple[int, ...], Element]:
        """Return the bound and the element type of a node's value outside the delegates.

        What attention takes has the cache's form; what it gives has an axis of heads.
        """
        operand = attention_operand(node)
        if operand is not None:
            return self._format.tensor(operand, self.sequence)
        bound, result = self._bounds(node), attention_result(node)
        if result is None:
            return bound, "float32"
        return (*bound[:-1], result.heads, result.head_dim), "float32"

    def _bounds(self, node: Node) -> tuple[int, ...]:
        return tuple(s if isinstance(s, int) else self.sequence for s in shape(node))

    def _output(self, segment: Segment, node: Node) -> int:
        segment.externals.append(node)
        return segment.graph.output(*self.host_tensor(node))

    # --- what rules ask for ---

    def parameter(self, node: Node) -> str:
        """Return the name of the parameter or table that a placeholder stands for."""
        return self._parameters[node.name]

    def value(self, segment: Segment, node: Node) -> int | Parts:
        """Return a node's value in this segment; it becomes an input if it is not made here."""
        if node not in segment.values:
            (outside, element), flat = self.host_tensor(node), self._bounds(node)
            value = segment.graph.input(outside, element)
            segment.externals.append(node)
            if flat != outside:
                dims = [1, 0, flat[-1]] if len(flat) == 3 else list(flat)
                value = segment.graph.reshape(value, dims, flat)
            segment.values[node] = value
        return segment.values[node]

    def plain(self, segment: Segment, node: Node) -> int:
        """Return a node's value, which must not be in parts."""
        return single(self.value(segment, node), node)

    def shared(self, segment: Segment, name: str, inner: tuple[int, ...]) -> int:
        """Return the rows of a table that belong to this call's tokens, as `[1, seq, *inner]`."""
        if name not in segment.shared:
            value = segment.graph.input((self.sequence, inner[-1]))
            segment.externals.append(name)
            segment.shared[name] = segment.graph.reshape(
                value, [1, 0, *inner], [1, self.sequence, *inner]
            )
        return segment.shared[name]
