"""Activations in XNNPACK's operators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.models.operators import GELU_CUBIC, GELU_QUICK

if TYPE_CHECKING:
    from mobilepack.models.layer_spec import Activation


def activate(graph: Graph, x: int, kind: Activation, out: int | None = None) -> int:
    """Apply an activation to a value."""
    if kind in ("silu", "gelu_quick"):
        inner = x if kind == "silu" else graph.scaled(x, GELU_QUICK)
        return graph.binary("multiply", x, graph.unary("sigmoid", inner), out)
    if kind == "gelu":
        return graph.unary("gelu", x, out)
    if kind == "gelu_tanh":
        return _gelu_tanh(graph, x, out)
    if kind == "relu":
        return graph.clamp(x, 0.0, math.inf, out)
    return graph.unary("square", graph.clamp(x, 0.0, math.inf), out)


def _gelu_tanh(graph: Graph, x: int, out: int | None) -> int:
    """Write it out: ExecuTorch's schema (1.5.1) has no tanh form, and XNNGelu is the erf form."""
    cubic = graph.scaled(graph.binary("multiply", graph.unary("square", x), x), GELU_CUBIC)
    inner = graph.scaled(graph.binary("add", x, cubic), math.sqrt(2 / math.pi))
    half = graph.scaled(x, 0.5)
    tanh = graph.unary("tanh", inner)
    return graph.binary("add", half, graph.binary("multiply", half, tanh), out)
