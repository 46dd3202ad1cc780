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

from mobilepack.backends.xnnpack.attention import Attention, Call, Lengths, Positions
from mobilepack.backends.xnnpack.cache import BLOCK, Blocks, Shape
from mobilepack.backends.xnnpack.graph import Element, Graph
from mobilepack.backends.xnnpack.layout import Bytes, Layout
from mobilepack.backends.xnnpack.program import ProgramBuilder


class BlockAttention(Attention):
    """See the module."""

    def __init__(self, program: ProgramBuilder, lengths: Lengths, cache: Blocks) -> None:
        blocks = -(-lengths.context // BLOCK)
        super().__init__(program, Lengths(blocks * BLOCK, lengths.sequence))
        self._cache = cache
        self._blocks = blocks
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

    def caches(self, shape: Shape) -> tuple[int, int]:
        rows = [1, self.lengths.context * shape.kv_heads, 1, shape.head_dim]
        key = self.program.state(rows, self._cache.key)
        return key, self.program.state(rows, "float16")

    def start(self, positions: Positions) -> None:
        """Compute blocks in use, their end, and which cache rows the new tokens take."""
        program = self.program
        zero, one, size = (program.integer(n) for n in (0, 1, BLOCK))
        last = self._arithmetic("sub", positions.end, one)
        self._used = self._arithmetic("add", self._arithmetic("floordiv", last, size), one)
        self._used_end = self._arithmetic("mul", self._used, size)
        self._ones = program.tensor([self._blocks])
        self.slice(self._ones_table, zero, zero, self._used, self._ones)
        for kv_heads, table in self._tables.items():
            heads = program.integer(kv_heads)
            first = self._arithmetic("mul", positions.start, heads)
            end = self._arithmetic("mul", positions.end, heads)
            rows = program.tensor([1, self.lengths.sequence * kv_heads], "int64")
            self.slice(table, one, first, end, rows)
            self._rows[kv_heads] = rows

    def write_cache(self, call: Call, positions: Positions) -> None:
        rows = self._rows[call.shape.kv_heads]
        for new, cache in ((call.key, call.key_cache), (call.value, call.value_cache)):
            self.program.kernel(
                "llama::update_cache_with_indices",
                "out",
                new,
                cache,
                self.program.integer(0),
                rows,
                self._written,
                self._written,
            )

    def one_token(self, call: Call, positions: Positions) -> None:
        program, shape = self.program, call.shape
        mask = self.mask(shape.window, positions, self._used_end)
        keys, values = self._in_use(call)
        groups = shape.heads // shape.kv_heads
        query = self._views.get(call.query)
        if query is None:
            query = program.view(call.query, [1, shape.kv_heads, groups, shape.head_dim])
            self._views[call.query] = query
        delegate = self.delegate(
            ("one", shape), lambda layout: self._one_token_graph(layout, shape)
        )
        program.call_delegate(delegate, query, keys, values, mask, self._ones, call.out)

    def many_tokens(self, call: Call, positions: Positions) -> None:
        shape = call.shape
        mask = self.mask(shape.window, positions, self._used_end)
        keys, values = self._in_use(call)
        delegate = self.delegate(
            ("many", shape), lambda layout: self._many_tokens_graph(layout, shape)
        )
        self.program.call_delegate(delegate, call.query, keys, values, mask, call.out)

    def _in_use(self, call: Call) -> tuple[int, int]:
        """Return views of both caches, cut to the blocks in use."""
        program, shape = self.program, call.shape
        dims = (shape.kv_heads, BLOCK, shape.head_dim)
        sizes = program.integers([self._used, *(program.integer(n) for n in dims)])
        views = []
        for cache in (call.key_cache, call.value_cache):
            if cache not in self._views:
                self._views[cache] = program.view(cache, [self._blocks, *dims], dynamic=True)
            program.resize(self._views[cache], sizes)
            views.append(self._views[cache])
        return views[0], views[1]

    def _arithmetic(self, kind: str, a: int, b: int) -> int:
        out = self.program.scalar_output()
        self.program.kernel(f"executorch_prim::{kind}", "Scalar", a, b, out)
        return out

    def _blocks_input(self, graph: Graph, shape: Shape, element: Element) -> int:
        return graph.input([self._blocks, shape.kv_heads, BLOCK, shape.head_dim], element)

    def _one_token_graph(self, layout: Layout, shape: Shape) -> Graph:
        graph, blocks, tokens = Graph(layout), self._blocks, self.lengths.context
        kv, dim = shape.kv_heads, shape.head_dim
        groups = shape.heads // kv
        query = graph.input([1, kv, groups, dim], self._cache.key)
        keys = self._blocks_input(graph, shape, self._cache.key)
        values = self._blocks_input(graph, shape, "float16")
        mask, ones = graph.input([1, tokens]), graph.input([blocks])
        out = graph.output([1, 1, shape.heads, dim])
        scores = graph.matmul(query, keys, transposed=True)  # [blocks, kv, groups, BLOCK]
        scores = graph.convert(graph.transpose(scores, [1, 2, 0, 3]), "float32")
        scores = graph.reshape(scores, [kv, groups, 0], [kv, groups, tokens])
        weights = graph.unary("softmax", graph.binary("add", scores, mask))
        weights = graph.convert(weights, "float16")
        weights = graph.reshape(weights, [kv, groups, 0, BLOCK], [kv, groups, blocks, BLOCK])
        weights = graph.transpose(weights, [2, 0, 1, 3])
        mixed = graph.convert(graph.matmul(weights, values), "float32")
        mixed = graph.reshape(mixed, [0, kv * groups * dim], [blocks, kv * groups * dim])
        total = graph.matmul(graph.reshape(ones, [1, 0], [1, blocks]), mixed)
        graph.reshape(total, [1, 1, shape.heads, dim], [], out)
        return graph

    def _many_tokens_graph(self, layout: Layout, shape: Shape) -> Graph:
        graph, sequence, tokens = Graph(layout), self.lengths.sequence, self.lengths.context
        kv, dim = shape.kv_heads, shape.head_dim
        groups = shape.heads // kv
        query = graph.input([1, sequence, shape.heads, dim], self._cache.key)
        keys = self._blocks_input(graph, shape, self._cache.key)
        values = self._blocks_input(graph, shape, "float16")
        mask = graph.input([sequence, tokens])
        out = graph.output([1, sequence, shape.heads, dim])
        query = graph.reshape(query, [0, kv, groups, dim], [sequence, kv, groups, dim])
        query = graph.transpose(query, [1, 2, 0, 3])
        keys, values = (
            graph.reshape(
                graph.transpose(part, [1, 0, 2, 3]), [kv, 1, 0, dim], [kv, 1, tokens, dim]
            )
            for part in (keys, values)
        )
        scores = graph.convert(graph.matmul(query, keys, transposed=True), "float32")
        weights = graph.unary("softmax", graph.binary("add", scores, mask))
        mixed = graph.matmul(graph.convert(weights, "float16"), values)
        mixed = graph.transpose(graph.convert(mixed, "float32"), [2, 0, 1, 3])
        graph.reshape(mixed, [1, 0, shape.heads, dim], [], out)
        return graph
