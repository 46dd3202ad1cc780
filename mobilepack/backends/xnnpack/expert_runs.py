"""Mixtures of experts: which experts run is decided in the program, by jumps.

Every expert is one delegate. With a single token the program goes from one chosen expert to the
next and finds each by halving the range of indices; an expert that was not chosen costs nothing.
With many tokens every expert that any of them chose runs once, on just the tokens that chose it:
their rows are gathered before and scattered after it, which copies whole rows. The results lie
side by side, `[tokens, count, hidden]`, until the next segment sums them with their weights.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mobilepack.backends.xnnpack.activations import activate
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Bytes, HeadRows
from mobilepack.backends.xnnpack.program import Jump, ProgramBuilder
from mobilepack.backends.xnnpack.storage import Storage

if TYPE_CHECKING:
    from mobilepack.models.layer_spec import Activation

Prim = Literal["add", "sub", "mul", "lt", "gt", "ge"]


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """Parameters of one layer's experts, and their sizes."""

    gate: str
    up: str
    down: str
    activation: Activation
    experts: int
    size: int
    hidden: int


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """One layer's experts: tensors of the program.

    Attributes:
        x: float32 `[1, seq, hidden]`, or `[1, hidden]` where only the last token is left.
        chosen: int64 `[1, seq, count]` or `[1, count]`.
        out: A view of `rows` as `[1, seq, count, hidden]` or `[1, count, hidden]`.
        rows: `[1, tokens * count, 1, hidden]`, written row by row.
        delegates: One per expert, by its index.
        count: Experts per token.
        tokens: Bound of `seq`.
    """

    x: int
    chosen: int
    out: int
    rows: int
    delegates: tuple[int, ...]
    count: int
    tokens: int
    hidden: int


def expert_graph(storage: Storage, weights: ExpertWeights, expert: int, tokens: int) -> Graph:
    """Return one expert: `[1, n, hidden]` to the same shape, n at most `tokens`."""
    graph = Graph(storage.layout)
    x = graph.input([1, tokens, weights.hidden])
    out = graph.output([1, tokens, weights.hidden])
    inner = _rows(expert, weights.size, weights.experts)
    gate = storage.linear(graph, x, weights.gate, None, inner, None)
    gate = activate(graph, gate, weights.activation)
    up = storage.linear(graph, x, weights.up, None, inner, None)
    mixed = graph.binary("multiply", gate, up)
    rows = _rows(expert, weights.hidden, weights.experts)
    storage.linear(graph, mixed, weights.down, None, rows, out)
    return graph


def _rows(expert: int, size: int, experts: int) -> HeadRows:
    return HeadRows(experts * size, expert * size, (expert + 1) * size)


class ExpertRuns:
    """Writes the runs of experts into a program."""

    def __init__(self, program: ProgramBuilder, length: int) -> None:
        """Prepare; `length` is the int that holds the call's number of tokens."""
        self._program = program
        self._length = length
        self._written = program.tensor([1], dynamic=False)

    def one_token(self, call: ExpertCall) -> None:
        """Run the chosen experts of a single token, one after the other."""
        p = self._program
        zero, one, count = p.integer(0), p.integer(1), p.integer(call.count)
        x = p.view(call.x, [1, 1, call.hidden])
        chosen = p.view(call.chosen, [call.count])
        rows = p.view(call.rows, [1, call.count, 1, call.hidden])
        index, made = p.tensor([], "int64", dynamic=False), p.tensor([1, call.tokens, call.hidden])
        row = p.view(made, [1, 1, 1, call.hidden])
        slot, expert, done = p.scalar_output(), p.scalar_output(), p.scalar_output(bool)
        with p.region():
            self._prim("add", zero, zero, slot)
            again = p.here()
            p.kernel("aten::select_copy", "int_out", chosen, zero, slot, index, index)
            p.kernel("aten::_local_scalar_dense", "", index, expert)
            for jump in self._dispatch(expert, (0, len(call.delegates)), (x, made), call.delegates):
                p.land(jump)
            p.kernel("llama::update_cache", "out", row, rows, slot, self._written, self._written)
            self._prim("add", slot, one, slot)
            self._prim("ge", slot, count, done)
            p.back_if_false(done, again)
        self._size_result(call, one)

    def _dispatch(
        self,
        expert: int,
        span: tuple[int, int],
        operands: tuple[int, int],
        delegates: Sequence[int],
    ) -> list[Jump]:
        """Call the delegate of one of the experts in a span; returns the jumps from its end."""
        first, end = span
        p = self._program
        if end - first == 1:
            p.call_delegate(delegates[first], *operands)
            return [p.jump()]
        middle = (first + end) // 2
        lower = p.scalar_output(bool)
        self._prim("lt", expert, p.integer(middle), lower)
        to_upper = p.jump_if_false(lower)
        ends = self._dispatch(expert, (first, middle), operands, delegates)
        p.land(to_upper)
        return ends + self._dispatch(expert, (middle, end), operands, delegates)

    def many_tokens(self, call: ExpertCall) -> None:
        """Run every expert that a token chose, on the tokens that chose it."""
        p = self._program
        pairs = call.tokens * call.count
        total = p.scalar_output()
        x = p.view(call.x, [call.tokens, call.hidden], dynamic=True)
        chosen = p.view(call.chosen, [pairs], dynamic=True)
        work = _Work(p, call, pairs)
        with p.region():
            self._prim("mul", self._length, p.integer(call.count), total)
            p.resize(x, p.integers([self._length, p.integer(call.hidden)]))
            p.resize(chosen, p.integers([total]))
            for expert, delegate in enumerate(call.delegates):
                self._gathered(call, work, (x, chosen), (expert, delegate))
        self._size_result(call, self._length)

    def _gathered(
        self,
        call: ExpertCall,
        work: _Work,
        operands: tuple[int, int],
        which: tuple[int, int],
    ) -> None:
        p, (x, chosen), (expert, delegate) = self._program, operands, which
        zero, false = p.integer(0), p.boolean(False)
        p.kernel("aten::eq", "Scalar_out", chosen, p.integer(expert), work.mask, work.mask)
        p.kernel("aten::nonzero", "out", work.mask, work.slots, work.slots)
        p.kernel("aten::sym_size", "int", work.slots, zero, work.found)
        self._prim("gt", work.found, zero, work.any)
        skip = p.jump_if_false(work.any)
        p.resize(work.slot_row, work.slot_sizes)
        arguments = (work.slot_row, work.divisor, work.tokens, work.tokens)
        p.kernel("aten::floor_divide", "out", *arguments)
        gather = (x, work.tokens, p.integer(-1), false, false, work.taken, work.taken)
        p.kernel("aten::embedding", "out", *gather)
        p.call_delegate(delegate, work.taken, work.made)
        p.resize(work.made_rows, work.row_sizes)
        p.kernel(
            "llama::update_cache_with_indices",
            "out",
            work.made_rows,
            call.rows,
            zero,
            work.slot_row,
            self._written,
            self._written,
        )
        p.land(skip)

    def _size_result(self, call: ExpertCall, length: int) -> None:
        p = self._program
        one, count, hidden = (p.integer(n) for n in (1, call.count, call.hidden))
        if call.tokens > 1:
            p.resize(call.out, p.integers([one, length, count, hidden]))

    def _prim(self, kind: Prim, a: int, b: int, out: int) -> None:
        self._program.kernel(f"executorch_prim::{kind}", "Scalar", a, b, out)


class _Work:
    """Scratch tensors that all experts of a layer use in turn."""

    def __init__(self, program: ProgramBuilder, call: ExpertCall, pairs: int) -> None:
        p, tokens, hidden = program, call.tokens, call.hidden
        self.found, self.any = p.scalar_output(), p.scalar_output(bool)
        self.mask = p.tensor([pairs], "bool")
        self.slots = p.tensor([pairs, 1], "int64")
        self.slot_row = p.view(self.slots, [1, pairs], dynamic=True)
        self.tokens = p.tensor([1, tokens], "int64")
        self.taken, self.made = p.tensor([1, tokens, hidden]), p.tensor([1, tokens, hidden])
        self.made_rows = p.view(self.made, [1, tokens, 1, hidden], dynamic=True)
        one = p.integer(1)
        self.slot_sizes = p.integers([one, self.found])
        self.row_sizes = p.integers([one, self.found, one, p.integer(hidden)])
        data = struct.pack("<q", call.count)
        buffer = p.layout.keep(f"int64.{call.count}", len(data), Bytes(data))
        self.divisor = p.constant([1], "int64", buffer)
