"""What every attention of a program shares: masks, delegates that are called for all layers."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from mobilepack.backends.xnnpack.cache import Shape
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Bytes, Layout, filled
from mobilepack.backends.xnnpack.program import ProgramBuilder

_HIDDEN = -1e9  # added to a score that must not count: exp(-1e9) is 0 in float32


@dataclass(frozen=True, slots=True)
class Lengths:
    """Bounds of a program: positions of the cache, tokens of one call."""

    context: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Positions:
    """Values of one call that every attention needs.

    Attributes:
        start: int, position of the first token.
        end: int, position after the last token.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """One layer's attention: tensors of the program.

    Attributes:
        caches: From `Attention.caches`, keys first.
        biases: Linear biases by position of the key, `[heads, context]`.
    """

    shape: Shape
    query: int
    key: int
    value: int
    caches: tuple[int, ...]
    out: int
    biases: int | None = None


class Attention(ABC):
    """Writes attentions into a program; one subclass per form of the cache."""

    def __init__(self, program: ProgramBuilder, lengths: Lengths) -> None:
        """Reserve the constants."""
        self.program = program
        self.lengths = lengths
        self._iota = self._constant_floats([float(i) for i in range(lengths.context)])
        self._delegates: dict[object, int] = {}
        self._masks: dict[int, int] = {}
        self._biases: dict[int, int] = {}
        self.operators = 0
        self.workspace_bytes = 0

    @abstractmethod
    def caches(self, shape: Shape) -> tuple[int, ...]:
        """Return the tensors that keep one layer's keys and values."""

    @abstractmethod
    def start(self, positions: Positions) -> None:
        """Compute what both branches of the program need."""

    @abstractmethod
    def write_cache(self, call: Call, positions: Positions) -> None:
        """Append the new keys and values to the cache."""

    @abstractmethod
    def one_token(self, call: Call, positions: Positions) -> None:
        """Attend for a single token."""

    @abstractmethod
    def many_tokens(self, call: Call, positions: Positions) -> None:
        """Attend for any number of tokens."""

    def begin_branch(self) -> None:
        """Forget masks and biases: a new branch of the program starts, which makes its own."""
        self._masks.clear()
        self._biases.clear()

    def mask(self, window: int, positions: Positions, columns_end: int) -> int:
        """Return the additive mask `[seq, columns_end]`, made once per branch and window."""
        if window in self._masks:
            return self._masks[window]
        program, lengths = self.program, self.lengths
        rows, columns = program.tensor([lengths.sequence]), program.tensor([lengths.context])
        mask = program.tensor([lengths.sequence, lengths.context])
        zero = program.integer(0)
        self.slice(self._iota, zero, positions.start, positions.end, rows)
        self.slice(self._iota, zero, zero, columns_end, columns)
        delegate = self.delegate(("mask", window), lambda layout: self._mask_graph(layout, window))
        program.call_delegate(delegate, rows, columns, mask)
        self._masks[window] = mask
        return mask

    def biases(self, call: Call, columns_end: int) -> tuple[int, ...]:
        """Return the linear biases of the keys that are attended to, none or one tensor."""
        if call.biases is None:
            return ()
        if call.biases not in self._biases:
            program = self.program
            part = program.tensor([call.shape.heads, self.lengths.context])
            self.slice(call.biases, program.integer(1), program.integer(0), columns_end, part)
            self._biases[call.biases] = part
        return (self._biases[call.biases],)

    def weights(
        self, graph: Graph, scores: int, mask: int, shape: Shape, biases: int | None
    ) -> int:
        """Turn scores `[kv_heads, groups, …, tokens]` into weights of a sum.

        Args:
            graph: Of the delegate.
            scores: Products of queries and keys, scaled.
            mask: Added to every head's scores.
            shape: Of the attention.
            biases: `[heads, tokens]`, added by head, if the shape asks for them.
        """
        if shape.softcap:
            inner = graph.unary("tanh", graph.scaled(scores, 1 / shape.softcap))
            scores = graph.scaled(inner, shape.softcap)
        if biases is not None:
            tokens = self.lengths.context
            middle = [1] * (len(graph.shape(scores)) - 3)
            dims = [shape.kv_heads, shape.heads // shape.kv_heads, *middle]
            scores = graph.binary("add", scores, graph.reshape(biases, [*dims, 0], [*dims, tokens]))
        return graph.unary("softmax", graph.binary("add", scores, mask))

    def bias_input(self, graph: Graph, shape: Shape) -> int | None:
        """Add the input of the linear biases where there are some."""
        return graph.input([shape.heads, self.lengths.context]) if shape.biased else None

    def slice(self, source: int, axis: int, start: int, end: int, out: int) -> None:
        """Copy positions `start` to `end` (exclusive) along an axis."""
        one = self.program.integer(1)
        self.program.kernel(
            "aten::slice_copy", "Tensor_out", source, axis, start, end, one, out, out
        )

    def delegate(self, key: object, build: Callable[[Layout], Graph]) -> int:
        """Return the delegate of a graph without weights, stored once."""
        if key not in self._delegates:
            graph = build(self.program.layout)
            self.operators += len(graph)
            self.workspace_bytes = max(self.workspace_bytes, graph.workspace_bytes())
            self._delegates[key] = self.program.add_delegate(graph)
        return self._delegates[key]

    def _constant_floats(self, values: list[float]) -> int:
        data = struct.pack(f"<{len(values)}f", *values)
        buffer = self.program.layout.constant(len(data), Bytes(data))
        return self.program.constant([len(values)], "float32", buffer)

    def _mask_graph(self, layout: Layout, window: int) -> Graph:
        """Build mask[r, c] = -1e9 where c > r or c <= r - window, else 0."""
        graph, lengths = Graph(layout), self.lengths
        rows, columns = graph.input([lengths.sequence]), graph.input([lengths.context])
        out = graph.output([lengths.sequence, lengths.context])
        rows = graph.reshape(rows, [0, 1], [lengths.sequence, 1])
        hidden = graph.clamp(graph.binary("subtract", columns, rows), 0.0, 1.0)
        if window:
            reach = graph.operand(filled(1, float(window - 1)), [1])
            behind = graph.binary("subtract", graph.binary("subtract", rows, columns), reach)
            hidden = graph.binary("add", hidden, graph.clamp(behind, 0.0, 1.0))
        graph.scaled(hidden, _HIDDEN, out)
        return graph
