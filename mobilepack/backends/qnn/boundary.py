"""What a method's caller sees: float32 where the graph has 16-bit integers.

ExecuTorch's Java API has no tensor for unsigned 16-bit integers, and nothing is lost by it: masks
and logits are small beside keys and values, which stay the integers that they are (8 bits).
"""

from __future__ import annotations

from dataclasses import replace

from mobilepack.backends.qnn.assemble import Operands
from mobilepack.backends.qnn.graph import Graph, Step, Tensor


def with_floats_outside(graph: Graph, operands: Operands) -> Graph:
    """Return a graph that quantises its wide inputs first, and dequantises its wide outputs last.

    What is inside keeps its name and its encoding; of a graph that computes in floats nothing
    changes.
    """

    def is_wide(tensor: Tensor) -> bool:
        code = operands.code(tensor) if tensor.dtype == "float32" else None
        return code is not None and code.bits == 16

    inner = {t.name: replace(t, role="inner") for t in graph.inputs if is_wide(t)}
    outside = {
        t.name: replace(t, name=f"{t.name}_float", role="outside")
        for t in (*graph.inputs, *graph.outputs)
        if is_wide(t)
    }
    steps = [Step("quantize", (outside[name],), tensor) for name, tensor in inner.items()]
    steps += [replace(s, inputs=tuple(inner.get(t.name, t) for t in s.inputs)) for s in graph.steps]
    wide = [t for t in graph.outputs if t.name in outside]
    steps += [Step("dequantize", (t,), outside[t.name]) for t in wide]
    return Graph(
        tuple(outside.get(t.name, t) for t in graph.inputs),
        tuple(outside.get(t.name, t) for t in graph.outputs),
        tuple(steps),
    )
