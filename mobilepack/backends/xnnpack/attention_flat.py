"""Attention over a float32 cache of one row per token.

Many tokens attend inside XNNPACK, one token in ExecuTorch's `llama::custom_sdpa`; which of the two
is decided once per call of the program.
"""

from __future__ import annotations

from mobilepack.backends.xnnpack.attention import Attention, Call, Lengths, Positions
from mobilepack.backends.xnnpack.cache import Shape
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Layout
from mobilepack.backends.xnnpack.program import ProgramBuilder


class FlatAttention(Attention):
    """See the module."""

    def __init__(self, program: ProgramBuilder, lengths: Lengths) -> None:
        super().__init__(program, lengths)
        self._written = program.tensor([1], dynamic=False)
        self._used: dict[int, int] = {}

    def caches(self, shape: Shape) -> tuple[int, ...]:
        dims = [1, self.lengths.context, shape.kv_heads, shape.head_dim]
        return self.program.state(dims), self.program.state(dims)

    def start(self, positions: Positions) -> None:
        """Need nothing."""

    def write_cache(self, call: Call, positions: Positions) -> None:
        for new, cache in zip((call.key, call.value), call.caches, strict=True):
            self.program.kernel(
                "llama::update_cache",
                "out",
                new,
                cache,
                positions.start,
                self._written,
                self._written,
            )

    def one_token(self, call: Call, positions: Positions) -> None:
        if call.shape.window or call.shape.softcap or call.shape.biased:
            self.many_tokens(call, positions)
            return
        program = self.program
        program.kernel(
            "llama::custom_sdpa",
            "out",
            call.query,
            *call.caches,
            positions.start,
            program.null(),
            program.double(0.0),
            program.boolean(True),
            program.double(call.shape.scale),
            call.out,
            call.out,
        )

    def many_tokens(self, call: Call, positions: Positions) -> None:
        program, shape = self.program, call.shape
        mask = self.mask(shape.window, positions, positions.end)
        one = program.integer(1)
        dims = (
            one,
            positions.end,
            program.integer(shape.kv_heads),
            program.integer(shape.head_dim),
        )
        sizes = program.integers(dims)
        keys, values = (self._used_part(cache) for cache in call.caches)
        for part in (keys, values):
            program.resize(part, sizes)
        delegate = self.delegate(shape, lambda layout: self._graph(layout, shape))
        biases = self.biases(call, positions.end)
        program.call_delegate(delegate, call.query, keys, values, mask, *biases, call.out)

    def _used_part(self, cache: int) -> int:
        """Return a second name for a cache, which can be cut to the positions in use."""
        if cache not in self._used:
            self._used[cache] = self.program.view(cache, dynamic=True)
        return self._used[cache]

    def _graph(self, layout: Layout, shape: Shape) -> Graph:
        graph, context, sequence = Graph(layout), self.lengths.context, self.lengths.sequence
        kv, dim = shape.kv_heads, shape.head_dim
        groups = shape.heads // kv
        query = graph.input([1, sequence, shape.heads, dim])
        keys = graph.input([1, context, kv, dim])
        values = graph.input([1, context, kv, dim])
        mask = graph.input([sequence, context])
        biases = self.bias_input(graph, shape)
        out = graph.output([1, sequence, shape.heads, dim])
        query = graph.scaled(query, shape.scale)
        query = graph.reshape(query, [0, kv, groups, dim], [sequence, kv, groups, dim])
        query = graph.transpose(query, [1, 2, 0, 3])
        keys = graph.reshape(keys, [0, kv, 1, dim], [context, kv, 1, dim])
        values = graph.reshape(values, [0, kv, 1, dim], [context, kv, 1, dim])
        scores = graph.matmul(query, graph.transpose(keys, [1, 2, 3, 0]))
        weights = self.weights(graph, scores, mask, shape, biases)
        mixed = graph.matmul(weights, graph.transpose(values, [1, 2, 0, 3]))
        mixed = graph.transpose(mixed, [2, 0, 1, 3])
        graph.reshape(mixed, [1, 0, shape.heads, dim], [], out)
        return graph
