"""Lower the exported decoder to an ExecuTorch program with XNNPACK delegates, without weights.

The exported graph is walked once. What comes out is the program and the layout of its file; the
weights are filled in afterwards (`emit.py`). Nothing here knows a model family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from mobilepack.backends.executorch import constant_method
from mobilepack.backends.xnnpack.attention import Attention, Call, Lengths, Positions
from mobilepack.backends.xnnpack.attention_blocks import BlockAttention
from mobilepack.backends.xnnpack.attention_flat import FlatAttention
from mobilepack.backends.xnnpack.attention_int8 import Int8BlockAttention
from mobilepack.backends.xnnpack.cache import Blocks, CacheFormat, Flat
from mobilepack.backends.xnnpack.embedding import NAME as EMBEDDING
from mobilepack.backends.xnnpack.embedding import EmbeddingTable
from mobilepack.backends.xnnpack.head import program_head
from mobilepack.backends.xnnpack.layout import Layout, Table
from mobilepack.backends.xnnpack.layout import Positions as LearnedPositions
from mobilepack.backends.xnnpack.lowered import (
    CarryStep,
    DelegateStep,
    LastTokenStep,
    Lowered,
    Place,
    PlayedStep,
    Step,
)
from mobilepack.backends.xnnpack.moe import MIXTURE, Mixtures
from mobilepack.backends.xnnpack.operands import UnknownGraphError, attention_shape
from mobilepack.backends.xnnpack.program import Jump, ProgramBuilder
from mobilepack.backends.xnnpack.recurrent import RECURRENT, Recurrences
from mobilepack.backends.xnnpack.rules_recurrent import Window
from mobilepack.backends.xnnpack.segments import Segment, SegmentBuilder
from mobilepack.backends.xnnpack.storage import Storage
from mobilepack.contract.manifest import Recipe
from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.graph import arguments, operators, parameter_names, result, shape
from mobilepack.models.tables import ALIBI, TABLES

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_EMBEDDING = torch.ops.aten.embedding.default
_ATTENTION = torch.ops.mobilepack.attention.default
_LAST_TOKEN = torch.ops.mobilepack.last_token.default
_POSITIONS = torch.ops.mobilepack.positions.default
BARRIERS = frozenset({_EMBEDDING, _ATTENTION, _LAST_TOKEN}) | MIXTURE | RECURRENT

Metadata = Mapping[str, int | bool | tuple[int, ...]]


class Lowering:
    """One walk over one exported program.

    Attributes:
        program: The method under construction.
        tensors: Tensor of the program that holds a node's value outside the delegates.
        segments: What each delegate of the layers was made from.
        places: Where each step stands in the program.
    """

    def __init__(
        self,
        exported: ExportedProgram,
        recipe: Recipe,
        identities: Mapping[str, str],
        max_seq_len: int,
    ) -> None:
        """Prepare the walk.

        Args:
            exported: From `pipeline/export.py`.
            recipe: How weights and embedding are stored.
            identities: Per parameter, a name that tied parameters share.
            max_seq_len: Positions of the KV cache.
        """
        self._nodes = operators(exported)
        self._result = result(exported)
        self._recipe = recipe
        self._identities = identities
        self._context = max_seq_len
        self._sequence = _longest_sequence(exported)
        self._names = parameter_names(exported)
        self._shapes = {
            self._names[node.name]: tuple(int(size) for size in shape(node))
            for node in exported.graph.nodes
            if node.name in self._names
        }
        self._tables = {n: s for n, s in self._shapes.items() if n.startswith(TABLES)}
        self._layout = Layout()
        self.program = ProgramBuilder(self._layout)
        self._storage = Storage(
            self._layout,
            self._shapes,
            _first_names(identities),
            recipe.linear != "fp32",
            recipe.group_size,
        )
        self._cache = self._cache_format()
        self._builder = SegmentBuilder(
            self._storage, self._names, self._sequence, self._cache, self._needed_outside
        )
        self._segment_of = self._segments()
        self.tensors: dict[Node, int] = {}
        self.segments: dict[int, Segment] = {}
        self.places: list[Place] = []
        self._shared: dict[str, int] = {}
        self._operators = 0
        self._workspace = 0

    def run(self, metadata: Metadata) -> Lowered:
        """Walk the graph.

        Raises:
            UnknownGraphError: The graph holds something this lowering has no rule for.
        """
        tokens = self._constants()
        positions = self._prologue(tokens)
        embedding, steps = self._collect()
        self._embedding.look_up(tokens, self._host_tensor(embedding))
        self._recurrences.begin(positions, self._input_pos)
        self._branches(steps, positions)
        self._recurrences.end(positions)
        self.program.output(self.tensors[self._result])
        plan, sizes = self.program.finish("forward")
        parts = (self._attention, self._mixtures, self._recurrences)
        layout = self._layout.place()
        plans = [plan, *(constant_method(name, value) for name, value in metadata.items())]
        return Lowered(
            head=program_head(plans, layout),
            layout=layout,
            tally=self._storage.tally,
            delegates=self.program.delegate_count,
            operators=self._operators + sum(part.operators for part in parts),
            kernel_calls=dict(self.program.kernel_calls),
            state_bytes=sizes["states"],
            activation_bytes=sizes["activations"],
            workspace_bytes=max(self._workspace, *(part.workspace_bytes for part in parts)),
            linears=tuple(self.program.linears),
        )

    # --- which node goes where ---

    def _segments(self) -> dict[Node, int]:
        numbers: dict[Node, int] = {}
        current = 0
        for node in self._nodes:
            if node.target in BARRIERS:
                current += 1
                numbers[node] = -1
            elif self._builder.knows(node):
                numbers[node] = current
            else:
                raise UnknownGraphError(f"no rule for {node.target}")
        return numbers

    def _needed_outside(self, node: Node) -> bool:
        own = self._segment_of[node]
        return any(self._segment_of.get(user) != own for user in node.users)

    # --- what runs before the layers ---

    def _cache_format(self) -> CacheFormat:
        if self._recipe.kv_cache == "fp32":
            return Flat()
        biased = any(name.endswith(".k.bias") for name in self._shapes)
        return Blocks("float32" if biased else "float16", self._recipe.kv_cache == "int8")

    def _constants(self) -> int:
        """Reserve the constants; returns the input `tokens`, which comes first."""
        tokens = self.program.input([1, self._sequence], "int64", dynamic=True)
        self._table_constants()
        rows, columns = self._shapes[EMBEDDING]
        self._embedding = EmbeddingTable(
            self.program, self._storage, (rows, columns), self._recipe, self._identities
        )
        lengths = Lengths(self._context, self._sequence)
        self._attention: Attention
        if isinstance(self._cache, Blocks):
            kind = Int8BlockAttention if self._cache.int8 else BlockAttention
            blocks = kind(self.program, lengths, self._cache)
            for node in self._nodes:
                if node.target is _ATTENTION:
                    blocks.prepare(attention_shape(node).kv_heads)
            self._attention = blocks
        else:
            self._attention = FlatAttention(self.program, lengths)
        return tokens

    def _prologue(self, tokens: int) -> Positions:
        program = self.program
        self._input_pos = input_pos = program.input([1], "int64", dynamic=False)
        zero, one = program.integer(0), program.integer(1)
        self._length = program.scalar_output()
        program.kernel("aten::sym_size", "int", tokens, one, self._length)
        scalar = program.tensor([], "int64", dynamic=False)
        program.kernel("aten::select_copy", "int_out", input_pos, zero, zero, scalar, scalar)
        start, end = program.scalar_output(), program.scalar_output()
        program.kernel("aten::_local_scalar_dense", "", scalar, start)
        program.kernel("executorch_prim::add", "Scalar", start, self._length, end)
        for name, (table, width) in self._by_position.items():
            part = program.tensor([self._sequence, width])
            program.kernel(
                "aten::slice_copy", "Tensor_out", table, zero, start, end, one, part, part
            )
            self._shared[name] = part
        positions = Positions(start, end)
        self._attention.start(positions)
        return positions

    def _table_constants(self) -> None:
        """Reserve the tables of positions: rotary angles, learned positions, linear biases."""
        program, layout = self.program, self._layout
        self._by_position: dict[str, tuple[int, int]] = {}
        self._biases: dict[str, int] = {}
        for name, (rows, width) in self._tables.items():
            buffer = layout.constant(4 * rows * width, Table(name))
            constant = program.constant([rows, width], "float32", buffer)
            if name.startswith(ALIBI):
                self._biases[name] = constant
            else:
                self._by_position[name] = constant, width
        for node in self._nodes:
            if node.target is not _POSITIONS:
                continue
            _, table, _, offset = arguments(node)
            name, count = self._names[table.name], self._context
            _, width = self._shapes[name]
            buffer = layout.constant(4 * count * width, LearnedPositions(name, offset, count))
            constant = program.constant([count, width], "float32", buffer)
            self._by_position[name] = constant, width
            self._storage.tally.add("fp32", count * width, 4 * count * width)

    # --- the layers ---

    def _collect(self) -> tuple[Node, list[Step]]:
        steps: list[Step] = []
        shared = (self.program, self._builder, self.tensors, self._length)
        self._mixtures = Mixtures(*shared)
        self._recurrences = Recurrences(*shared, self._context)
        embedding: Node | None = None
        segment = self._builder.start()
        for node in self._nodes:
            if node.target not in BARRIERS:
                self._builder.add(segment, node)
                continue
            steps += self._close(segment)
            segment = self._builder.start()
            if node.target is _EMBEDDING:
                embedding = node
            elif node.target is _ATTENTION:
                steps.append(self._call(node))
            elif node.target in MIXTURE:
                steps.append(self._mixtures.step(node))
            elif node.target in RECURRENT:
                steps.append(self._recurrences.step(node))
            else:
                steps.append(self._last_token(node))
        steps += self._close(segment)
        if embedding is None:
            raise UnknownGraphError("no embedding")
        return embedding, steps

    def _close(self, segment: Segment) -> list[Step]:
        if not len(segment.graph):
            return []
        self._operators += len(segment.graph)
        self._workspace = max(self._workspace, segment.graph.workspace_bytes())
        carried = [self._window(window) for window in segment.windows]
        args = tuple(
            self._shared[item] if isinstance(item, str) else self._host_tensor(item)
            for item in segment.externals
        )
        delegate = self.program.add_delegate(segment.graph)
        self.segments[delegate] = segment
        return [DelegateStep(delegate, args), *carried]

    def _window(self, window: Window) -> CarryStep:
        """Make the tensors of a convolution: its state, and all tokens it sees in a call."""
        before, channels = window.before, window.channels
        state = self._recurrences.state([1, before, channels])
        whole = self.program.tensor([1, before + window.bound, channels])
        self._shared |= {window.state: state, window.name: whole}
        return CarryStep(window, state, whole)

    def _last_token(self, node: Node) -> LastTokenStep:
        (source,) = arguments(node)
        return LastTokenStep(self.tensors[source], self._host_tensor(node))

    def _call(self, node: Node) -> Call:
        query, key, value = arguments(node)[:3]
        shape = attention_shape(node)
        alibi = arguments(node)[9]
        return Call(
            shape=shape,
            query=self.tensors[query],
            key=self.tensors[key],
            value=self.tensors[value],
            caches=self._attention.caches(shape),
            out=self._host_tensor(node),
            biases=None if alibi is None else self._biases[self._names[alibi.name]],
        )

    def _host_tensor(self, node: Node) -> int:
        if node not in self.tensors:
            bound, element = self._builder.host_tensor(node)
            dynamic = any(not isinstance(size, int) for size in shape(node))
            self.tensors[node] = self.program.tensor(bound, element, dynamic=dynamic)
        return self.tensors[node]

    def _branches(self, steps: list[Step], positions: Positions) -> None:
        program = self.program
        to_single: Jump | None = None
        if self._sequence > 1:
            many = program.scalar_output(bool)
            program.kernel("executorch_prim::gt", "Scalar", self._length, program.integer(1), many)
            to_single = program.jump_if_false(many)
            before = dict(program.kernel_calls)
            self._play(steps, positions, many_tokens=True)
            to_end = program.jump()
            program.land(to_single)
            program.kernel_calls = before
        self._play(steps, positions, many_tokens=False)
        if to_single is not None:
            program.land(to_end)

    def _play(self, steps: list[Step], positions: Positions, *, many_tokens: bool) -> None:
        program, attention = self.program, self._attention
        attention.begin_branch()
        one, last = program.integer(1), program.integer(-1)
        for step in steps:
            start = program.here()
            if isinstance(step, DelegateStep):
                program.call_delegate(step.delegate, *step.args)
            elif isinstance(step, LastTokenStep):
                program.kernel(
                    "aten::select_copy", "int_out", step.source, one, last, step.out, step.out
                )
            elif isinstance(step, PlayedStep):
                step.play(many_tokens)
            elif isinstance(step, CarryStep):
                self._recurrences.carry(step.window, step.state, step.whole)
            else:
                attention.write_cache(step, positions)
                attend = attention.many_tokens if many_tokens else attention.one_token
                attend(step, positions)
            self.places.append(Place(step, many_tokens, start, program.here()))


def _first_names(identities: Mapping[str, str]) -> dict[str, str]:
    """Return, per parameter, the first that is made of the same bytes; the embedding is alone."""
    first: dict[str, str] = {}
    result = {}
    for name, identity in identities.items():
        if name != EMBEDDING and identity != identities.get(EMBEDDING):
            result[name] = first.setdefault(identity, name)
    return result


def _longest_sequence(exported: ExportedProgram) -> int:
    tokens = next(n for n in exported.graph.nodes if n.name == "tokens")
    size = shape(tokens)[1]
    if isinstance(size, int):
        return size
    return int(exported.range_constraints[size.node.expr].upper)
