"""Attention over an int8 cache in blocks: a quarter of float32's memory, half of float16's.

Each token's key and value has, per head, one scale: its largest magnitude. Stored are the scale and
127 * x / scale as integers. Products use half precision of numbers in [-1, 1]; key scales multiply
the scores and value scales the weights, so that no scaled copy of the cache is made.
"""

from __future__ import annotations

from mobilepack.backends.xnnpack.attention import Call, Positions
from mobilepack.backends.xnnpack.attention_blocks import BlockAttention, Stored
from mobilepack.backends.xnnpack.cache import BLOCK, Shape
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Layout, filled
from mobilepack.models.quantization import SMALLEST_KV_SCALE


class Int8BlockAttention(BlockAttention):
    """See the module."""

    def caches(self, shape: Shape) -> tuple[int, ...]:
        rows = self.lengths.context * shape.kv_heads
        data, scales = [1, rows, 1, shape.head_dim], [1, rows, 1, 1]
        kinds = ((data, "int8"), (data, "int8"), (scales, "float32"), (scales, "float32"))
        return tuple(self.program.state(dims, dtype) for dims, dtype in kinds)

    def stored_dims(self, shape: Shape) -> tuple[tuple[int, int, int], ...]:
        data, scales = (shape.kv_heads, BLOCK, shape.head_dim), (shape.kv_heads, 1, BLOCK)
        return data, data, scales, scales

    def write_cache(self, call: Call, positions: Positions) -> None:
        program, shape = self.program, call.shape
        rows = self.lengths.sequence * shape.kv_heads
        extremes = [extreme for x in (call.key, call.value) for extreme in self._extremes(x, rows)]
        quantised = [program.tensor([1, rows, 1, shape.head_dim], "int8") for _ in range(2)]
        scales = [program.tensor([1, rows, 1, 1]) for _ in range(2)]
        delegate = self.delegate(
            ("quantise", shape.kv_heads, shape.head_dim),
            lambda layout: _quantise_graph(layout, rows, shape.head_dim),
        )
        program.call_delegate(delegate, call.key, call.value, *extremes, *quantised, *scales)
        for new, cache in zip((*quantised, *scales), call.caches, strict=True):
            self.write_rows(shape, new, cache)

    def stored(self, graph: Graph, shape: Shape) -> Stored:
        bounds = [[self.blocks, *dims] for dims in self.stored_dims(shape)]
        keys, values = (graph.input(bound, "int8") for bound in bounds[:2])
        key_scales, value_scales = (graph.input(bound) for bound in bounds[2:])
        keys, values = graph.convert(keys, self.cache.key), graph.convert(values, "float16")
        return Stored(keys, values, key_scales, value_scales)

    def _extremes(self, x: int, rows: int) -> tuple[int, int]:
        """Return largest and smallest number of each row; XNNPACK has no such reduction here."""
        program = self.program
        last, keep = program.integers([program.integer(-1)]), program.boolean(True)
        high, low = program.tensor([1, rows, 1, 1]), program.tensor([1, rows, 1, 1])
        program.kernel("aten::amax", "out", x, last, keep, high, high)
        program.kernel("aten::amin", "out", x, last, keep, low, low)
        return high, low


def _quantise_graph(layout: Layout, rows: int, head_dim: int) -> Graph:
    """Build x -> (round(127 * x / scale), scale) with scale = max |x| per row, for two tensors."""
    graph = Graph(layout)
    inputs = [graph.input([1, rows, 1, head_dim]) for _ in range(2)]
    extremes = [graph.input([1, rows, 1, 1]) for _ in range(4)]
    integers = [graph.output([1, rows, 1, head_dim], "int8") for _ in range(2)]
    scales = [graph.output([1, rows, 1, 1]) for _ in range(2)]
    smallest = graph.operand(filled(1, SMALLEST_KV_SCALE), [1])
    for number in range(2):
        high, low = extremes[2 * number : 2 * number + 2]
        largest = graph.binary("maximum", high, graph.unary("negate", low))
        scale = graph.binary("maximum", largest, smallest, scales[number])
        graph.convert(graph.binary("divide", inputs[number], scale), "int8", integers[number])
    return graph
