"""Attention with its cache: many tokens inside XNNPACK, one token in ExecuTorch's own kernel.

Both read the same cache `[1, max_seq_len, kv_heads, head_dim]`. For more than one token the scores
are batched matrix products in ONE delegate without weights, called for every layer of the same
shape. Which of the two runs is decided once per call of the program.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Layout
from mobilepack.backends.xnnpack.program import ProgramBuilder
from mobilepack.backends.xnnpack.storage import Storage

_HIDDEN = -1e9  # added to a score that must not count: exp(-1e9) is 0 in float32


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides an attention's graph."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int


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
    """One layer's attention: tensors of the program."""

    shape: Shape
    query: int
    key: int
    value: int
    key_cache: int
    value_cache: int
    out: int


class AttentionEmitter:
    """Writes attentions into a program."""

    def __init__(
        self, program: ProgramBuilder, storage: Storage, max_seq_len: int, sequence: int, iota: int
    ) -> None:
        """Create the emitter.

        Args:
            program: The method under construction.
            storage: Its parameters.
            max_seq_len: Positions of the cache.
            sequence: Longest `seq` of one call.
            iota: Constant tensor 0, 1, 2, … float32 `[max_seq_len]`.
        """
        self._program = program
        self._storage = storage
        self._context = max_seq_len
        self._sequence = sequence
        self._iota = iota
        self._masks: dict[int, int] = {}
        self._delegates: dict[Shape | int, int] = {}
        self._parts: dict[int, int] = {}
        self._dummy = program.tensor([1], dynamic=False)
        self.operators = 0
        self.workspace_bytes = 0

    def begin(self) -> None:
        """Forget the masks: a new branch of the program starts, which makes its own."""
        self._masks.clear()

    def write_cache(self, call: Call, positions: Positions) -> None:
        """Append the new keys and values to the cache."""
        for new, cache in ((call.key, call.key_cache), (call.value, call.value_cache)):
            self._program.kernel(
                "llama::update_cache", "out", new, cache, positions.start, self._dummy, self._dummy
            )

    def one_token(self, call: Call, positions: Positions) -> None:
        """Attend for a single token."""
        if call.shape.window:
            self.many_tokens(call, positions)
            return
        program = self._program
        program.kernel(
            "llama::custom_sdpa",
            "out",
            call.query,
            call.key_cache,
            call.value_cache,
            positions.start,
            program.null(),
            program.double(0.0),
            program.boolean(True),
            program.double(call.shape.scale),
            call.out,
            call.out,
        )

    def many_tokens(self, call: Call, positions: Positions) -> None:
        """Attend for any number of tokens, inside XNNPACK."""
        program, shape = self._program, call.shape
        mask = self._mask(shape.window, positions)
        keys, values = self._filled_part(call.key_cache), self._filled_part(call.value_cache)
        one = program.integer(1)
        sizes = (
            one,
            positions.end,
            *(program.integer(n) for n in (shape.kv_heads, shape.head_dim)),
        )
        size_list = program.integers(sizes)
        for part in (keys, values):
            program.resize(part, size_list)
        if shape not in self._delegates:
            graph = self._attention_graph(shape)
            self._delegates[shape] = self._store(graph)
        program.call_delegate(self._delegates[shape], call.query, keys, values, mask, call.out)

    def _store(self, graph: Graph) -> int:
        self.operators += len(graph)
        self.workspace_bytes = max(self.workspace_bytes, graph.workspace_bytes())
        return self._program.add_delegate(graph.serialise())

    def _filled_part(self, cache: int) -> int:
        """Return a second name for a cache, which can be cut to the positions in use."""
        if cache not in self._parts:
            self._parts[cache] = self._program.view(cache, dynamic=True)
        return self._parts[cache]

    def _mask(self, window: int, positions: Positions) -> int:
        if window in self._masks:
            return self._masks[window]
        program = self._program
        rows, columns = program.tensor([self._sequence]), program.tensor([self._context])
        mask = program.tensor([self._sequence, self._context])
        zero, one = program.integer(0), program.integer(1)
        for start, part in ((positions.start, rows), (zero, columns)):
            program.kernel(
                "aten::slice_copy",
                "Tensor_out",
                self._iota,
                zero,
                start,
                positions.end,
                one,
                part,
                part,
            )
        if window not in self._delegates:
            graph = self._mask_graph(self._storage.layout, window)
            self._delegates[window] = self._store(graph)
        program.call_delegate(self._delegates[window], rows, columns, mask)
        self._masks[window] = mask
        return mask

    def _mask_graph(self, layout: Layout, window: int) -> Graph:
        """Build mask[r, c] = -1e9 where c > r or c <= r - window, else 0."""
        graph = Graph(layout)
        rows, columns = graph.input([self._sequence]), graph.input([self._context])
        out = graph.output([self._sequence, self._context])
        hidden = graph.constant(self._storage.filled(1, _HIDDEN), [1])
        rows = graph.reshape(rows, [0, 1], [self._sequence, 1])
        ahead = graph.clamp(graph.binary("subtract", columns, rows), 0.0, 1.0)
        if window:
            reach = graph.constant(self._storage.filled(1, float(window - 1)), [1])
            behind = graph.binary("subtract", graph.binary("subtract", rows, columns), reach)
            ahead = graph.binary("add", ahead, graph.clamp(behind, 0.0, 1.0))
        graph.binary("multiply", ahead, hidden, out)
        return graph

    def _attention_graph(self, shape: Shape) -> Graph:
        graph, context, sequence = Graph(self._storage.layout), self._context, self._sequence
        kv, dim = shape.kv_heads, shape.head_dim
        groups = shape.heads // kv
        query = graph.input([1, sequence, shape.heads, dim])
        keys = graph.input([1, context, kv, dim])
        values = graph.input([1, context, kv, dim])
        mask = graph.input([sequence, context])
        out = graph.output([1, sequence, shape.heads, dim])
        scale = graph.constant(self._storage.filled(1, shape.scale), [1])
        query = graph.binary("multiply", query, scale)
        query = graph.reshape(query, [0, kv, groups, dim], [sequence, kv, groups, dim])
        query = graph.transpose(query, [1, 2, 0, 3])
        keys = graph.reshape(keys, [0, kv, 1, dim], [context, kv, 1, dim])
        values = graph.reshape(values, [0, kv, 1, dim], [context, kv, 1, dim])
        scores = graph.matmul(query, graph.transpose(keys, [1, 2, 3, 0]))
        weights = graph.unary("softmax", graph.binary("add", scores, mask))
        mixed = graph.matmul(weights, graph.transpose(values, [1, 2, 0, 3]))
        mixed = graph.transpose(mixed, [2, 0, 1, 3])
        graph.reshape(mixed, [1, 0, shape.heads, dim], [], out)
        return graph
