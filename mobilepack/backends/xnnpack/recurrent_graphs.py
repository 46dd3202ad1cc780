"""Mamba 2's and RecurrentGemma's recurrences in XNNPACK's operators.

A state is an input and an output of the same delegate, in the same memory: what reads the old
state comes before the one operator that writes the new one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import filled
from mobilepack.backends.xnnpack.storage import Storage
from mobilepack.models.recurrent_spec import CHUNK

_HIDDEN = 1e9  # subtracted from a logarithm that must not count: exp(-1e9) is 0 in float32


@dataclass(frozen=True, slots=True)
class SpaceShape:
    """Sizes of one state-space model, and its three vectors `[heads]`."""

    groups: int
    heads: int
    dim: int
    state: int
    limits: tuple[float, float]
    dt_bias: str
    a_log: str
    d: str

    @property
    def each(self) -> int:
        """Heads of a group."""
        return self.heads // self.groups

    @property
    def state_shape(self) -> list[int]:
        """Shape of the state in the program."""
        return [self.groups, self.each, self.dim, self.state]


def softplus(graph: Graph, x: int) -> int:
    """Return log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|).

    log(1 + e) loses a small e; multiplied with e / ((1 + e) - 1) it is exact again (Goldberg 1991,
    theorem 4).
    """
    small = graph.unary("exp", graph.unary("negate", graph.unary("abs", x)))
    one = graph.operand(filled(1, 1.0), [1])
    sum_ = graph.binary("add", small, one)
    lost = graph.clamp(graph.binary("subtract", sum_, one), 1e-30, math.inf)
    ratio = graph.binary("divide", small, lost)
    logarithm = graph.binary("multiply", graph.unary("log", sum_), ratio)
    return graph.binary("add", graph.clamp(x, 0.0, math.inf), logarithm)


def _steps(graph: Graph, storage: Storage, shape: SpaceShape, dt: int, tokens: int) -> int:
    """Return the step sizes `[tokens, heads]`."""
    flat = graph.reshape(dt, [0, shape.heads], [tokens, shape.heads])
    step = softplus(graph, graph.binary("add", flat, storage.operand(graph, shape.dt_bias)))
    low, high = shape.limits
    # softplus is positive
    return step if low <= 0 and math.isinf(high) else graph.clamp(step, low, high)


def _rate(graph: Graph, storage: Storage, shape: SpaceShape) -> int:
    """Return a, `[heads]`."""
    return graph.unary("negate", graph.unary("exp", storage.operand(graph, shape.a_log)))


def _by_head(graph: Graph, value: int, shape: SpaceShape, inner: tuple[int, int]) -> int:
    """Return `[tokens, heads]` or `[heads]` as `[groups, heads of one, *inner]`, 0 for tokens."""
    bound = [shape.groups, shape.each, *inner]
    tokens = graph.shape(value)[0] if len(graph.shape(value)) == 2 else 1
    if len(graph.shape(value)) == 2:
        value = graph.transpose(value, [1, 0])
    return graph.reshape(
        value, bound, [shape.groups, shape.each, *(tokens if n == 0 else n for n in inner)]
    )


def one_token_graph(storage: Storage, shape: SpaceShape) -> Graph:
    """Return `x, dt, b, c, state -> state, y` for a single token, all but one elementwise."""
    graph = Graph(storage.layout)
    groups, each, dim, channels = shape.state_shape
    x, dt = graph.input([1, 1, shape.heads * dim]), graph.input([1, 1, shape.heads])
    b, c = (graph.input([1, 1, groups * channels]) for _ in range(2))
    state, new = graph.input(shape.state_shape), graph.output(shape.state_shape)
    out = graph.output([1, 1, shape.heads * dim])
    step = _steps(graph, storage, shape, dt, 1)
    decay = graph.unary("exp", graph.binary("multiply", step, _rate(graph, storage, shape)))
    step, decay = (
        graph.reshape(value, [groups, each, 1, 1], [groups, each, 1, 1]) for value in (step, decay)
    )
    inputs = graph.reshape(x, [groups, each, dim, 1], [groups, each, dim, 1])
    b, c = (
        graph.reshape(part, [groups, 1, 1, channels], [groups, 1, 1, channels]) for part in (b, c)
    )
    added = graph.binary("multiply", graph.binary("multiply", inputs, step), b)
    graph.binary("add", graph.binary("multiply", state, decay), added, new)
    read = graph.matmul(new, c, transposed=True)
    d = _by_head(graph, storage.operand(graph, shape.d), shape, (1, 1))
    total = graph.binary("add", read, graph.binary("multiply", inputs, d))
    graph.reshape(total, [1, 1, shape.heads * dim], [], out)
    return graph


def chunk_graph(storage: Storage, shape: SpaceShape) -> Graph:
    """Return `x, dt, b, c, lower, ones, state -> state, y` for up to `CHUNK` tokens.

    The parallel form of arXiv 2405.21060, section 6: within the chunk every token's output is a
    product with a matrix of decays between tokens; the state enters once and is carried out once.
    `lower` is the lower triangle of ones `[q, q]`, which sums the decays; `ones` is `[q]`.
    """
    graph, q = Graph(storage.layout), CHUNK
    groups, each, dim, channels = shape.state_shape
    x, dt = graph.input([1, q, shape.heads * dim]), graph.input([1, q, shape.heads])
    b, c = (graph.input([1, q, groups * channels]) for _ in range(2))
    lower, ones = graph.input([q, q]), graph.input([q])
    state, new = graph.input(shape.state_shape), graph.output(shape.state_shape)
    out = graph.output([1, q, shape.heads * dim])
    step = _steps(graph, storage, shape, dt, q)
    log_decay = graph.binary("multiply", step, _rate(graph, storage, shape))
    sums = graph.matmul(lower, log_decay)
    whole = graph.matmul(graph.reshape(ones, [1, 0], [1, q]), log_decay)
    whole = graph.reshape(whole, [groups, each, 1, 1], [groups, each, 1, 1])
    to, since = (_by_head(graph, sums, shape, inner) for inner in ((0, 1), (1, 0)))
    inputs = graph.reshape(x, [0, groups, each, dim], [q, groups, each, dim])
    inputs = graph.transpose(inputs, [1, 2, 0, 3])
    b, c = (_shared(graph, part, shape) for part in (b, c))
    hidden = graph.scaled(
        graph.binary("subtract", lower, graph.operand(filled(1, 1.0), [1])), _HIDDEN
    )
    decay = graph.unary("exp", graph.binary("add", graph.binary("subtract", to, since), hidden))
    scores = graph.binary("multiply", graph.matmul(c, b, transposed=True), decay)
    scores = graph.binary("multiply", scores, _by_head(graph, step, shape, (1, 0)))
    within = graph.matmul(scores, inputs)
    before = graph.matmul(c, state, transposed=True)
    before = graph.binary("multiply", before, graph.unary("exp", to))
    d = _by_head(graph, storage.operand(graph, shape.d), shape, (1, 1))
    total = graph.binary("add", within, before)
    total = graph.binary("add", total, graph.binary("multiply", inputs, d))
    graph.reshape(graph.transpose(total, [2, 0, 1, 3]), [1, 0, shape.heads * dim], [], out)
    left = graph.unary("exp", graph.binary("subtract", whole, to))
    left = graph.binary("multiply", left, _by_head(graph, step, shape, (0, 1)))
    carried = graph.transpose(graph.binary("multiply", inputs, left), [0, 1, 3, 2])
    added = graph.matmul(carried, b)
    kept = graph.binary("multiply", state, graph.unary("exp", whole))
    graph.binary("add", kept, added, new)
    return graph


def _shared(graph: Graph, part: int, shape: SpaceShape) -> int:
    """Return b or c as `[groups, 1, q, state]`."""
    q, groups, channels = graph.shape(part)[1], shape.groups, shape.state
    split = graph.reshape(part, [0, groups, channels], [q, groups, channels])
    return graph.reshape(
        graph.transpose(split, [1, 0, 2]), [groups, 1, 0, channels], [groups, 1, q, channels]
    )


def unit_graph(storage: Storage, parameter: str, width: int) -> Graph:
    """Return `x, input_gate, recurrent_gate, first, state -> state, out` for a single token."""
    graph = Graph(storage.layout)
    decay, added = _gated(graph, storage, parameter, (1, width))
    state, new = graph.input([1, 1, width]), graph.output([1, 1, width])
    out = graph.output([1, 1, width])
    _advance(graph, (decay, added, state), new, out)
    return graph


def gates_graph(storage: Storage, parameter: str, sequence: int, width: int) -> Graph:
    """Return `x, input_gate, recurrent_gate, first -> decay, added` for any number of tokens."""
    graph = Graph(storage.layout)
    _gated(graph, storage, parameter, (sequence, width), outputs=True)
    return graph


def advance_graph(storage: Storage, width: int) -> Graph:
    """Return `decay, added, state -> state, out` for a single token."""
    graph = Graph(storage.layout)
    decay, added, state = (graph.input([1, 1, width]) for _ in range(3))
    new, out = graph.output([1, 1, width]), graph.output([1, 1, width])
    _advance(graph, (decay, added, state), new, out)
    return graph


def _advance(graph: Graph, operands: tuple[int, int, int], new: int, out: int) -> None:
    decay, added, state = operands
    kept = graph.binary("multiply", decay, state)
    graph.binary("add", kept, added, out)
    graph.binary("add", kept, added, new)


def _gated(
    graph: Graph, storage: Storage, parameter: str, size: tuple[int, int], *, outputs: bool = False
) -> tuple[int, int]:
    """Return decay and added input, `[1, seq, width]`; `first` is 1 at position 0, else 0.

    1 - a^2 = -expm1(2 log a), and expm1(2 y) = 2 tanh(y) / (1 - tanh(y)): exact for a near 1.
    """
    sequence, width = size
    x, input_gate, recurrent_gate = (graph.input([1, sequence, width]) for _ in range(3))
    first = graph.input([sequence])
    outs = [graph.output([1, sequence, width]) for _ in range(2)] if outputs else [None, None]
    rate = graph.scaled(softplus(graph, storage.operand(graph, parameter)), -8.0)
    log_decay = graph.binary("multiply", graph.unary("sigmoid", recurrent_gate), rate)
    decay = graph.unary("exp", log_decay, outs[0])
    one = graph.operand(filled(1, 1.0), [1])
    tanh = graph.unary("tanh", log_decay)
    squared = graph.binary("divide", graph.scaled(tanh, -2.0), graph.binary("subtract", one, tanh))
    root = graph.unary("sqrt", squared)
    first = graph.reshape(first, [1, 0, 1], [1, sequence, 1])
    rest = graph.binary("multiply", first, graph.binary("subtract", one, root))
    scale = graph.binary("add", root, rest)
    gated = graph.binary("multiply", x, graph.unary("sigmoid", input_gate))
    return decay, graph.binary("multiply", gated, scale, outs[1])
