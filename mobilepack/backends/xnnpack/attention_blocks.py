"""Attention over a half-precision cache in blocks of tokens, wholly inside XNNPACK.

One token (decode) costs what reading the cache costs: batched products over the blocks as they
lie, a softmax over all of them, and a sum. ExecuTorch's `llama::custom_sdpa` reads each key and
value once per QUERY head instead; after 512 tokens that alone took decode down to 0.6 of its speed.

The memory after the last token of a block is whatever it was: zeros at first (ExecuTorch's Module
and its Python runtime start planned memory as zeros), later the numbers of an earlier prompt. The
mask hides it; it only has to be finite, and is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mobilepack.backends.xnnpack.attention import Attention, Call, Lengths, Positions
from mobilepack.backends.xnnpack.cache import BLOCK, Blocks, Shape
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Bytes, Layout
from mobilepack.backends.xnnpack.program import ProgramBuilder


@dataclass(frozen=True, slots=True)
class Stored:
    """The caches inside a graph: `[blocks, kv_heads, BLOCK, head_dim]`.

    Attributes:
        key_scales: What keys must be multiplied with, `[blocks, kv_heads, 1, BLOCK]` float32.
        value_scales: The same for values.
    """

    keys: int
    values: int
    key_scales: int | None = None
    value_scales: int | None = None


class BlockAttention(Attention):
    """See the module."""

    def __init__(self, program: ProgramBuilder, lengths: Lengths, cache: Blocks) -> None:
        blocks = -(-lengths.context // BLOCK)
        super().__init__(program, Lengths(blocks * BLOCK, lengths.sequence))
        self.cache = cache
        self.blocks = blocks
        self._written = program.tensor([1], dynamic=False)
        self._tables: dict[int, int] = {}
        self._rows: dict[int, int] = {}
        self._ones_table = self._constant_floats([1.0] * blocks)
        self._views: dict[int, int] = {}

    def prepare(self, kv_heads: int) -> None:
        """Reserve the table of cache rows for layers with so many heads."""
        if kv_heads in self._tables:
            return
        rows = [
            (token // BLOCK) * kv_heads * BLOCK + head * BLOCK + token % BLOCK
            for token in range(self.lengths.context)
            for head in range(kv_heads)
        ]
        data = struct.pack(f"<{len(rows)}q", *rows)
        buffer = self.program.layout.constant(len(data), Bytes(data))
        self._tables[kv_heads] = self.program.constant([1, len(rows)], "int64", buffer)

    def caches(self, shape: Shape) -> tuple[int, ...]:
        rows = [1, self.lengths.context * shape.kv_heads, 1, shape.head_dim]
        key = self.program.state(rows, self.cache.key)
        return key, self.program.state(rows, "float16")

    def start(self, positions: Positions) -> None:
        """Compute blocks in use, their end, and which cache rows the new tokens take."""
        program = self.program
        zero, one, size = (program.integer(n) for n in (0, 1, BLOCK))
        last = self._arithmetic("sub", positions.end, one)
        self._used = self._arithmetic("add", self._arithmetic("floordiv", last, size), one)
        self._used_end = self._arithmetic("mul", self._used, size)
        self._ones = program.tensor([self.blocks])
        self.slice(self._ones_table, zero, zero, self._used, self._ones)
        for kv_heads, table in self._tables.items():
            heads = program.integer(kv_heads)
            first = self._arithmetic("mul", positions.start, heads)
            end = self._arithmetic("mul", positions.end, heads)
            rows = program.tensor([1, self.lengths.sequence * kv_heads], "int64")
            self.slice(table, one, first, end, rows)
            self._rows[kv_heads] = rows

    def write_cache(self, call: Call, positions: Positions) -> None:
        for new, cache in zip((call.key, call.value), call.caches, strict=True):
            self.write_rows(call.shape, new, cache)

    def write_rows(self, shape: Shape, new: int, cache: int) -> None:
        """Copy rows `[1, seq * kv_heads, 1, channels]` of the new tokens to their places."""
        rows, zero = self._rows[shape.kv_heads], self.program.integer(0)
        self.program.kernel(
            "llama::update_cache_with_indices",
            "out",
            new,
            cache,
            zero,
            rows,
            self._written,
            self._written,
        )

    def one_token(self, call: Call, positions: Positions) -> None:
        program, shape = self.program, call.shape
        mask = self.mask(shape.window, positions, self._used_end)
        stored = self._in_use(call)
        groups = shape.heads // shape.kv_heads
        query = self._views.get(call.query)
        if query is None:
            query = program.view(call.query, [1, shape.kv_heads, groups, shape.head_dim])
            self._views[call.query] = query
        delegate = self.delegate(
            ("one", shape), lambda layout: self._one_token_graph(layout, shape)
        )
        biases = self.biases(call, self._used_end)
        program.call_delegate(delegate, query, *stored, mask, self._ones, *biases, call.out)

    def many_tokens(self, call: Call, positions: Positions) -> None:
        shape = call.shape
        mask = self.mask(shape.window, positions, self._used_end)
        stored = self._in_use(call)
        delegate = self.delegate(
            ("many", shape), lambda layout: self._many_tokens_graph(layout, shape)
        )
        biases = self.biases(call, self._used_end)
        self.program.call_delegate(delegate, call.query, *stored, mask, *biases, call.out)

    def stored_dims(self, shape: Shape) -> tuple[tuple[int, int, int], ...]:
        """Return what one block of each of a layer's caches looks like."""
        data = (shape.kv_heads, BLOCK, shape.head_dim)
        return data, data

    def _in_use(self, call: Call) -> list[int]:
        """Return views of the caches, cut to the blocks in use."""
        program, views = self.program, []
        for cache, dims in zip(call.caches, self.stored_dims(call.shape), strict=True):
            if cache not in self._views:
                self._views[cache] = program.view(cache, [self.blocks, *dims], dynamic=True)
            block = [program.integer(size) for size in dims]
            program.resize(self._views[cache], program.integers([self._used, *block]))
            views.append(self._views[cache])
        return views

    def _arithmetic(self, kind: str, a: int, b: int) -> int:
        out = self.program.scalar_output()
        self.program.kernel(f"executorch_prim::{kind}", "Scalar", a, b, out)
        return out

    def stored(self, graph: Graph, shape: Shape) -> Stored:
        """Add the inputs that `_in_use` returns."""
        keys, values = ([self.blocks, *dims] for dims in self.stored_dims(shape))
        return Stored(graph.input(keys, self.cache.key), graph.input(values, "float16"))

    def _one_token_graph(self, layout: Layout, shape: Shape) -> Graph:
        graph, blocks, tokens = Graph(layout), self.blocks, self.lengths.context
        kv, dim = shape.kv_heads, shape.head_dim
        groups = shape.heads // kv
        query = graph.input([1, kv, groups, dim], self.cache.key)
        stored = self.stored(graph, shape)
        mask, ones = graph.input([1, tokens]), graph.input([blocks])
        biases = self.bias_input(graph, shape)
        out = graph.output([1, 1, shape.heads, dim])
        scores = graph.matmul(query, stored.keys, transposed=True)  # [blocks, kv, groups, BLOCK]
        if stored.key_scales is not None:
            scores = graph.convert(scores, "float32")
            scores = graph.binary("multiply", scores, stored.key_scales)
        scores = graph.convert(graph.transpose(scores, [1, 2, 0, 3]), "float32")
        scores = graph.reshape(scores, [kv, groups, 0], [kv, groups, tokens])
        weights = self.weights(graph, scores, mask, shape, biases)
        if stored.value_scales is None:
            weights = graph.convert(weights, "float16")
        weights = graph.reshape(weights, [kv, groups, 0, BLOCK], [kv, groups, blocks, BLOCK])
        weights = graph.transpose(weights, [2, 0, 1, 3])
        if stored.value_scales is not None:
            weights = graph.binary("multiply", weights, stored.value_scales)
            weights = graph.convert(weights, "float16")
        mixed = graph.convert(graph.matmul(weights, stored.values), "float32")
        mixed = graph.reshape(mixed, [0, kv * groups * dim], [blocks, kv * groups * dim])
        total = graph.matmul(graph.reshape(ones, [1, 0], [1, blocks]), mixed)
        graph.reshape(total, [1, 1, shape.heads, dim], [], out)
        return graph

    def _many_tokens_graph(self, layout: Layout, shape: Shape) -> Graph:
        graph, sequence, tokens = Graph(layout), self.lengths.sequence, self.lengths.context
        kv, dim = shape.kv_heads, shape.head_dim
        groups = shape.heads // kv
        query = graph.input([1, sequence, shape.heads, dim], self.cache.key)
        stored = self.stored(graph, shape)
        mask = graph.input([sequence, tokens])
        biases = self.bias_input(graph, shape)
        out = graph.output([1, sequence, shape.heads, dim])
        query = graph.reshape(query, [0, kv, groups, dim], [sequence, kv, groups, dim])
        query = graph.transpose(query, [1, 2, 0, 3])

        def heads_first(part: int) -> int:
            """Turn `[blocks, kv, a, b]` into `[kv, 1, blocks * a, b]`."""
            wide = graph.shape(part)[-1]
            tall = graph.shape(part)[-2] * self.blocks
            ordered = graph.transpose(part, [1, 0, 2, 3])
            return graph.reshape(ordered, [kv, 1, 0, wide], [kv, 1, tall, wide])

        def along_tokens(scales: int) -> int:
            """Turn `[blocks, kv, 1, BLOCK]` into `[kv, 1, 1, tokens]`."""
            return graph.reshape(
                graph.transpose(scales, [1, 2, 0, 3]), [kv, 1, 1, 0], [kv, 1, 1, tokens]
            )

        scores = graph.matmul(query, heads_first(stored.keys), transposed=True)
        scores = graph.convert(scores, "float32")
        if stored.key_scales is not None:
            scores = graph.binary("multiply", scores, along_tokens(stored.key_scales))
        weights = self.weights(graph, scores, mask, shape, biases)
        if stored.value_scales is not None:
            weights = graph.binary("multiply", weights, along_tokens(stored.value_scales))
        mixed = graph.matmul(graph.convert(weights, "float16"), heads_first(stored.values))
        mixed = graph.transpose(graph.convert(mixed, "float32"), [2, 0, 1, 3])
        graph.reshape(mixed, [1, 0, shape.heads, dim], [], out)
        return graph
