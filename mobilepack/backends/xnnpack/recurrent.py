"""Mixers with a state in the walk: their loops over tokens, and the states' life from call to call.

A state begins as zeros where the position is 0. It cannot be rewound: a call that goes on from
anywhere but the end of the call before is an error of the runtime, never a wrong answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from mobilepack.backends.xnnpack.attention import Positions
from mobilepack.backends.xnnpack.layout import Bytes
from mobilepack.backends.xnnpack.lowered import PlayedStep
from mobilepack.backends.xnnpack.program import ProgramBuilder
from mobilepack.backends.xnnpack.recurrent_graphs import (
    SpaceShape,
    advance_graph,
    chunk_graph,
    gates_graph,
    one_token_graph,
    unit_graph,
)
from mobilepack.backends.xnnpack.rules_recurrent import Window
from mobilepack.backends.xnnpack.segments import SegmentBuilder
from mobilepack.models.graph import arguments, fixed
from mobilepack.models.recurrent_spec import CHUNK

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.graph import Graph

_SPACE = torch.ops.mobilepack.state_space.default
_UNIT = torch.ops.mobilepack.rg_lru.default
RECURRENT = frozenset({_SPACE, _UNIT})

Prim = Literal["add", "sub", "eq", "ge", "sym_min"]


class Recurrences:
    """Turns the nodes of recurrences into steps, and keeps all states of a program."""

    def __init__(
        self,
        program: ProgramBuilder,
        builder: SegmentBuilder,
        tensors: dict[Node, int],
        length: int,
        context: int,
    ) -> None:
        """Prepare.

        Args:
            program: Under construction.
            builder: Knows parameters and how they are stored.
            tensors: The program's tensor of each node that lies outside the segments.
            length: The int that holds the call's number of tokens.
            context: Positions of the program.
        """
        self._program = program
        self._builder = builder
        self._tensors = tensors
        self._length = length
        self._context = context
        self._states: list[int] = []
        self._first: int | None = None
        self.operators = 0
        self.workspace_bytes = 0

    def state(self, shape: list[int]) -> int:
        """Return a new state, zeros at position 0."""
        made = self._program.state(shape)
        self._states.append(made)
        return made

    # --- from call to call ---

    def begin(self, positions: Positions, input_pos: int) -> None:
        """Reset the states at position 0; elsewhere a call must go on where the last one ended."""
        if not self._states:
            return
        p, zero = self._program, self._program.integer(0)
        self._next = p.state([1], "int64")
        scalar = p.tensor([], "int64", dynamic=False)
        expected, fits = p.scalar_output(), p.scalar_output(bool)
        self._first = self._is_first(positions)
        with p.region():
            self._prim("eq", positions.start, zero, fits)
            to_check = p.jump_if_false(fits)
            for state in self._states:
                p.kernel("aten::fill", "Scalar_out", state, p.double(0.0), state, state)
            reset = p.jump()
            p.land(to_check)
            p.kernel("aten::select_copy", "int_out", self._next, zero, zero, scalar, scalar)
            p.kernel("aten::_local_scalar_dense", "", scalar, expected)
            self._prim("eq", expected, positions.start, fits)
            to_error = p.jump_if_false(fits)
            going_on = p.jump()
            p.land(to_error)
            # The runtime's only way to fail on purpose: an index that `input_pos` does not have.
            out_of_range = (input_pos, zero, p.integer(1), scalar, scalar)
            p.kernel("aten::select_copy", "int_out", *out_of_range)
            p.land(going_on)
            p.land(reset)

    def end(self, positions: Positions) -> None:
        """Note where the next call has to go on."""
        if self._states:
            p = self._program
            p.kernel("aten::fill", "Scalar_out", self._next, positions.end, self._next, self._next)

    def _is_first(self, positions: Positions) -> int:
        """Return `[seq]`: 1 at position 0, else 0."""
        p, data = self._program, struct.pack("<f", 1.0) + bytes(4 * (self._context - 1))
        buffer = p.layout.keep("first_position", len(data), Bytes(data))
        table = p.constant([self._context], "float32", buffer)
        part = p.tensor([self._builder.sequence])
        self._slice(table, 0, (positions.start, positions.end), part)
        return part

    def carry(self, window: Window, state: int, whole: int) -> None:
        """Keep the last tokens that a convolution saw for the next call."""
        p, end = self._program, self._program.scalar_output()
        self._prim("add", self._length, p.integer(window.before), end)
        self._slice(whole, 1, (self._length, end), state)

    # --- steps ---

    def step(self, node: Node) -> PlayedStep:
        """Return the step of a node of `RECURRENT`, with its states and delegates."""
        return PlayedStep(self._space(node) if node.target is _SPACE else self._unit(node))

    def _space(self, node: Node) -> Callable[[bool], None]:
        *operands, dt_bias, a_log, d, state_node, _, low, high = arguments(node)
        heads, dim, channels = (fixed(state_node, axis) for axis in range(3))
        shape = SpaceShape(
            groups=fixed(operands[2], -1) // channels,
            heads=heads,
            dim=dim,
            state=channels,
            limits=(float(low), float(high)),
            dt_bias=self._builder.parameter(dt_bias),
            a_log=self._builder.parameter(a_log),
            d=self._builder.parameter(d),
        )
        storage, bound = self._builder.storage, self._builder.sequence
        inputs = [self._tensors[operand] for operand in operands]
        state, out = self.state(shape.state_shape), self._program.tensor([1, bound, heads * dim])
        self._tensors[node] = out
        one = self._delegate(one_token_graph(storage, shape))
        chunk = self._delegate(chunk_graph(storage, shape)) if bound > 1 else one

        def play(many_tokens: bool) -> None:
            if many_tokens:
                self._chunks(inputs, (state, out), shape, chunk)
            else:
                self._program.call_delegate(one, *inputs, state, state, out)

        return play

    def _chunks(
        self, inputs: list[int], outputs: tuple[int, int], shape: SpaceShape, delegate: int
    ) -> None:
        """Run the parallel form over one chunk of tokens after the other."""
        p, (state, out) = self._program, outputs
        width = shape.heads * shape.dim
        widths = (width, shape.heads, *[shape.groups * shape.state] * 2)
        parts = [p.tensor([1, CHUNK, size]) for size in widths]
        made, count = p.tensor([1, CHUNK, width]), p.scalar_output()
        row_part, lower, ones = (
            p.tensor([CHUNK, CHUNK]),
            p.tensor([CHUNK, CHUNK]),
            p.tensor([CHUNK]),
        )
        zero, one = p.integer(0), p.integer(1)
        triangle, ones_table = self._triangle()
        made_rows = p.view(made, [1, CHUNK, 1, width], dynamic=True)
        row_sizes = p.integers([one, count, one, p.integer(width)])
        with self._loop(out, width, CHUNK) as (start, end, rows):
            self._prim("sub", end, start, count)
            for whole, part in zip(inputs, parts, strict=True):
                self._slice(whole, 1, (start, end), part)
            self._slice(triangle, 0, (zero, count), row_part)
            self._slice(row_part, 1, (zero, count), lower)
            self._slice(ones_table, 0, (zero, count), ones)
            p.call_delegate(delegate, *parts, lower, ones, state, state, made)
            p.resize(made_rows, row_sizes)
            self._write_rows(made_rows, rows, start)

    def _unit(self, node: Node) -> Callable[[bool], None]:
        *operands, parameter_node, _, _ = arguments(node)
        parameter, width = self._builder.parameter(parameter_node), fixed(node, -1)
        storage, bound, p = self._builder.storage, self._builder.sequence, self._program
        inputs = [self._tensors[operand] for operand in operands]
        state, out = self.state([1, 1, width]), p.tensor([1, bound, width])
        self._tensors[node] = out
        unit = self._delegate(unit_graph(storage, parameter, width))
        if bound > 1:
            gates = self._delegate(gates_graph(storage, parameter, bound, width))
            advance = self._delegate(advance_graph(storage, width))

        def play(many_tokens: bool) -> None:
            if self._first is None:
                raise ValueError("states have not begun")
            if many_tokens:
                decay, added = p.tensor([1, bound, width]), p.tensor([1, bound, width])
                p.call_delegate(gates, *inputs, self._first, decay, added)
                self._tokens((decay, added), (state, out), advance, width)
            else:
                p.call_delegate(unit, *inputs, self._first, state, state, out)

        return play

    def _tokens(
        self, inputs: tuple[int, int], outputs: tuple[int, int], delegate: int, width: int
    ) -> None:
        """Advance the state token by token: an elementwise step is cheaper than any scan."""
        p, (state, out) = self._program, outputs
        decay, added, made = (p.tensor([1, 1, width]) for _ in range(3))
        row = p.view(made, [1, 1, 1, width])
        with self._loop(out, width, 1) as (start, end, rows):
            self._slice(inputs[0], 1, (start, end), decay)
            self._slice(inputs[1], 1, (start, end), added)
            p.call_delegate(delegate, decay, added, state, state, made)
            self._write_rows(row, rows, start)

    # --- in words of the program ---

    @contextmanager
    def _loop(self, out: int, width: int, step: int) -> Iterator[tuple[int, int, int]]:
        """Hold the body of a loop over the call's tokens, `step` at a time.

        Yields:
            Ints that hold the first token and the one after the last, and the rows of `out`.
        """
        p, bound = self._program, self._builder.sequence
        zero, one, last = p.integer(0), p.integer(1), p.integer(width)
        start, end, done = p.scalar_output(), p.scalar_output(), p.scalar_output(bool)
        rows = p.view(out, [1, bound, 1, width], dynamic=True)
        with p.region():
            p.resize(out, p.integers([one, self._length, last]))
            p.resize(rows, p.integers([one, self._length, one, last]))
            self._prim("add", zero, zero, start)
            again = p.here()
            self._prim("add", start, p.integer(step), end)
            self._prim("sym_min", end, self._length, end)
            yield start, end, rows
            self._prim("add", end, zero, start)
            self._prim("ge", start, self._length, done)
            p.back_if_false(done, again)

    def _write_rows(self, value: int, rows: int, start: int) -> None:
        written = self._program.tensor([1], dynamic=False)
        self._program.kernel("llama::update_cache", "out", value, rows, start, written, written)

    def _slice(self, source: int, axis: int, span: tuple[int, int], out: int) -> None:
        p = self._program
        cut = (p.integer(axis), *span, p.integer(1))
        p.kernel("aten::slice_copy", "Tensor_out", source, *cut, out, out)

    def _triangle(self) -> tuple[int, int]:
        """Return the constants `[CHUNK, CHUNK]` (ones at and below the diagonal) and `[CHUNK]`."""
        p = self._program
        values = [float(column <= row) for row in range(CHUNK) for column in range(CHUNK)]
        made = []
        for name, numbers, shape in (
            ("lower_triangle", values, [CHUNK, CHUNK]),
            ("chunk_ones", [1.0] * CHUNK, [CHUNK]),
        ):
            data = struct.pack(f"<{len(numbers)}f", *numbers)
            buffer = p.layout.keep(name, len(data), Bytes(data))
            made.append(p.constant(shape, "float32", buffer))
        return made[0], made[1]

    def _delegate(self, graph: Graph) -> int:
        self.operators += len(graph)
        self.workspace_bytes = max(self.workspace_bytes, graph.workspace_bytes())
        return self._program.add_delegate(graph)

    def _prim(self, kind: Prim, a: int, b: int, out: int) -> None:
        self._program.kernel(f"executorch_prim::{kind}", "Scalar", a, b, out)
