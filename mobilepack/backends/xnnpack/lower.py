"""Lower the exported decoder to an ExecuTorch program with XNNPACK delegates, without weights.

The exported graph is walked once. What comes out is the program and the layout of its file; the
weights are filled in afterwards (`emit.py`). Nothing here knows a model family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mobilepack.backends.xnnpack.attention import Attention, Call, Lengths, Positions
from mobilepack.backends.xnnpack.attention_blocks import BlockAttention
from mobilepack.backends.xnnpack.attention_flat import FlatAttention
from mobilepack.backends.xnnpack.attention_int8 import Int8BlockAttention
from mobilepack.backends.xnnpack.cache import Blocks, CacheFormat, Flat
from mobilepack.backends.xnnpack.layout import FileMap, Layout, Matrix, RopeTable
from mobilepack.backends.xnnpack.program import Jump, ProgramBuilder, constant_method
from mobilepack.backends.xnnpack.segments import (
    Segment,
    SegmentBuilder,
    UnknownGraphError,
    attention_shape,
)
from mobilepack.backends.xnnpack.storage import Alias, Storage, Tally
from mobilepack.backends.xnnpack.vendor import aligned_size, et, pad_to, serialise
from mobilepack.contract.manifest import Recipe
from mobilepack.models.encodings import embedding_encoding
from mobilepack.models.graph import arguments, operators, parameter_names, result, shape

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_EMBEDDING = torch.ops.aten.embedding.default
_ATTENTION = torch.ops.mobilepack.attention.default
_LAST_TOKEN = torch.ops.mobilepack.last_token.default
_BARRIERS = frozenset({_EMBEDDING, _ATTENTION, _LAST_TOKEN})

Metadata = Mapping[str, int | bool | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program without its weights.

    Attributes:
        head: The bytes before the first segment (flatbuffer and extended header).
        layout: What fills the segments.
        tally: Parameters and bytes per storage format.
        delegates: Number of XNNPACK delegates.
        operators: Operators inside the delegates.
        kernel_calls: Kernel calls outside, by name, in one call with a single token.
        state_bytes: KV cache.
        activation_bytes: Planned intermediate tensors outside the delegates.
        workspace_bytes: Intermediate values inside the most demanding delegate.
    """

    head: bytes
    layout: FileMap
    tally: Tally
    delegates: int
    operators: int
    kernel_calls: Mapping[str, int]
    state_bytes: int
    activation_bytes: int
    workspace_bytes: int


@dataclass(frozen=True, slots=True)
class _DelegateStep:
    delegate: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _LastTokenStep:
    source: int
    out: int


_Step = _DelegateStep | _LastTokenStep | Call


class Lowering:
    """One walk over one exported program."""

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
        shapes = {
            self._names[node.name]: tuple(int(size) for size in shape(node))
            for node in exported.graph.nodes
            if node.name in self._names
        }
        self._shapes = shapes
        self._layout = Layout()
        self._program = ProgramBuilder(self._layout)
        self._storage = Storage(self._layout, shapes, recipe.linear != "fp32", recipe.group_size)
        self._cache = self._cache_format()
        self._builder = SegmentBuilder(
            self._storage, self._names, self._sequence, self._cache, self._needed_outside
        )
        self._segment_of = self._segments()
        self._tensors: dict[Node, int] = {}
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
        self._embed(embedding, tokens)
        self._branches(steps, positions)
        self._program.output(self._tensors[self._result])
        plan, sizes = self._program.finish("forward")
        layout = self._layout.place()
        plans = [plan, *(constant_method(name, value) for name, value in metadata.items())]
        return Lowered(
            head=_head(plans, layout),
            layout=layout,
            tally=self._storage.tally,
            delegates=self._program.delegate_count,
            operators=self._operators + self._attention.operators,
            kernel_calls=dict(self._program.kernel_calls),
            state_bytes=sizes["states"],
            activation_bytes=sizes["activations"],
            workspace_bytes=max(self._workspace, self._attention.workspace_bytes),
        )

    # --- which node goes where ---

    def _segments(self) -> dict[Node, int]:
        numbers: dict[Node, int] = {}
        current = 0
        for node in self._nodes:
            if node.target in _BARRIERS:
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
        tokens = self._program.input([1, self._sequence], "int64", dynamic=True)
        self._rope_tables()
        self._embedding_table()
        lengths = Lengths(self._context, self._sequence)
        self._attention: Attention
        if isinstance(self._cache, Blocks):
            kind = Int8BlockAttention if self._cache.int8 else BlockAttention
            blocks = kind(self._program, lengths, self._cache)
            for node in self._nodes:
                if node.target is _ATTENTION:
                    blocks.prepare(attention_shape(node).kv_heads)
            self._attention = blocks
        else:
            self._attention = FlatAttention(self._program, lengths)
        return tokens

    def _prologue(self, tokens: int) -> Positions:
        program = self._program
        input_pos = program.input([1], "int64", dynamic=False)
        zero, one = program.integer(0), program.integer(1)
        self._length = program.scalar_output()
        program.kernel("aten::sym_size", "int", tokens, one, self._length)
        scalar = program.tensor([], "int64", dynamic=False)
        program.kernel("aten::select_copy", "int_out", input_pos, zero, zero, scalar, scalar)
        start, end = program.scalar_output(), program.scalar_output()
        program.kernel("aten::_local_scalar_dense", "", scalar, start)
        program.kernel("executorch_prim::add", "Scalar", start, self._length, end)
        for name, (table, width) in self._tables.items():
            part = program.tensor([self._sequence, width])
            program.kernel(
                "aten::slice_copy", "Tensor_out", table, zero, start, end, one, part, part
            )
            self._shared[name] = part
        positions = Positions(start, end)
        self._attention.start(positions)
        return positions

    def _rope_tables(self) -> None:
        self._tables: dict[str, tuple[int, int]] = {}
        for name in ("cos", "sin"):
            rows, width = self._shapes[name]
            buffer = self._layout.constant(4 * rows * width, RopeTable(name))
            self._tables[name] = (
                self._program.constant([rows, width], "float32", buffer),
                width,
            )

    def _embedding_table(self) -> None:
        name = "embed.weight"
        rows, columns = self._shapes[name]
        program, layout, total = self._program, self._layout, rows * columns
        encoding, group = embedding_encoding(
            columns, self._recipe.embedding, self._recipe.group_size
        )
        self._encoding = encoding
        if encoding == "fp32":
            buffer = layout.constant(4 * total, Matrix(name, "fp32", 0, "values"))
            self._table: tuple[int, ...] = (program.constant([rows, columns], "float32", buffer),)
            self._storage.tally.add("fp32", total, 4 * total)
            self._share_with_head(name, Alias("fp32", 0, buffer))
            return
        eight = encoding == "int8"
        width, dtype = (columns, "int8") if eight else (columns // 2, "uint8")
        scale_shape = [rows] if eight else [rows, columns // group]
        values = layout.constant(rows * width, Matrix(name, encoding, group, "values"))
        self._share_with_head(name, Alias(encoding, group, values))
        scale_bytes = (4 if eight else 2) * total // group
        scales = layout.constant(scale_bytes, Matrix(name, encoding, group, "scales"))
        self._table = (
            program.constant([rows, width], dtype, values),
            program.constant(scale_shape, "float32" if eight else "float16", scales),
        )
        label = "embedding int8 per row" if eight else f"embedding int4 group {group}"
        self._storage.tally.add(label, total, rows * width + scale_bytes)

    def _share_with_head(self, name: str, alias: Alias) -> None:
        for other, identity in self._identities.items():
            if other != name and identity == self._identities[name]:
                self._storage.alias(other, alias)

    def _embed(self, node: Node, tokens: int) -> None:
        program, out = self._program, self._host_tensor(node)
        if self._encoding == "fp32":
            minus_one, false = program.integer(-1), program.boolean(False)
            program.kernel(
                "aten::embedding", "out", *self._table, tokens, minus_one, false, false, out, out
            )
            return
        extra: tuple[int, ...] = ()
        if self._encoding == "int8":
            low, high = program.integer(-128), program.integer(127)
            kernel, overload = "embedding_byte", "out"
        else:
            low, high = program.integer(-8), program.integer(7)
            kernel, overload = "embedding_4bit", "dtype_out"
            extra = (program.null(),)  # the type of the result: float32
        program.kernel(
            f"quantized_decomposed::{kernel}",
            overload,
            *self._table,
            program.null(),
            low,
            high,
            tokens,
            *extra,
            out,
            out,
        )

    # --- the layers ---

    def _collect(self) -> tuple[Node, list[_Step]]:
        steps: list[_Step] = []
        embedding: Node | None = None
        segment = self._builder.start()
        for node in self._nodes:
            if node.target not in _BARRIERS:
                self._builder.add(segment, node)
                continue
            steps += self._close(segment)
            segment = self._builder.start()
            if node.target is _EMBEDDING:
                embedding = node
            elif node.target is _ATTENTION:
                steps.append(self._call(node))
            else:
                steps.append(self._last_token(node))
        steps += self._close(segment)
        if embedding is None:
            raise UnknownGraphError("no embedding")
        return embedding, steps

    def _close(self, segment: Segment) -> list[_Step]:
        if not len(segment.graph):
            return []
        self._operators += len(segment.graph)
        self._workspace = max(self._workspace, segment.graph.workspace_bytes())
        args = tuple(
            self._shared[item] if isinstance(item, str) else self._host_tensor(item)
            for item in segment.externals
        )
        return [_DelegateStep(self._program.add_delegate(segment.graph), args)]

    def _last_token(self, node: Node) -> _LastTokenStep:
        (source,) = arguments(node)
        return _LastTokenStep(self._tensors[source], self._host_tensor(node))

    def _call(self, node: Node) -> Call:
        query, key, value = arguments(node)[:3]
        shape = attention_shape(node)
        return Call(
            shape=shape,
            query=self._tensors[query],
            key=self._tensors[key],
            value=self._tensors[value],
            caches=self._attention.caches(shape),
            out=self._host_tensor(node),
        )

    def _host_tensor(self, node: Node) -> int:
        if node not in self._tensors:
            bound, element = self._builder.host_tensor(node)
            dynamic = any(not isinstance(size, int) for size in shape(node))
            self._tensors[node] = self._program.tensor(bound, element, dynamic=dynamic)
        return self._tensors[node]

    def _branches(self, steps: list[_Step], positions: Positions) -> None:
        program = self._program
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

    def _play(self, steps: list[_Step], positions: Positions, *, many_tokens: bool) -> None:
        program, attention = self._program, self._attention
        attention.begin_branch()
        one, last = program.integer(1), program.integer(-1)
        for step in steps:
            if isinstance(step, _DelegateStep):
                program.call_delegate(step.delegate, *step.args)
            elif isinstance(step, _LastTokenStep):
                program.kernel(
                    "aten::select_copy", "int_out", step.source, one, last, step.out, step.out
                )
            else:
                attention.write_cache(step, positions)
                attend = attention.many_tokens if many_tokens else attention.one_token
                attend(step, positions)


def _longest_sequence(exported: ExportedProgram) -> int:
    tokens = next(n for n in exported.graph.nodes if n.name == "tokens")
    size = shape(tokens)[1]
    if isinstance(size, int):
        return size
    return int(exported.range_constraints[size.node.expr].upper)


def _head(plans: list[et.ExecutionPlan], layout: FileMap) -> bytes:
    """Serialise the program and its extended header: all bytes before the first segment."""
    first = layout.constants[0]
    program = et.Program(
        version=0,
        execution_plan=plans,
        constant_buffer=[],
        backend_delegate_data=[],
        segments=[et.DataSegment(offset=offset, size=size) for offset, size in layout.segments],
        constant_segment=et.SubsegmentOffsets(
            segment_index=layout.constant_segment,
            offsets=[0, *(offset - first for offset in layout.constants)],
        ),
        mutable_data_segments=None,
        named_data=[
            et.NamedData(key=key, segment_index=index) for key, index in layout.named.items()
        ],
    )
    flat = serialise._program_to_flatbuffer(
        program, constant_tensor_alignment=None, delegate_alignment=None
    )
    header_bytes = aligned_size(serialise._ExtendedHeader.EXPECTED_LENGTH, flat.max_alignment)
    program_bytes = header_bytes + len(flat.data)
    base = aligned_size(program_bytes, 4096)
    header = serialise._ExtendedHeader(
        program_size=program_bytes, segment_base_offset=base, segment_data_size=layout.size
    )
    data: bytes = serialise._insert_flatbuffer_header(
        flatbuffer_data=flat.data,
        magic_regex=r"ET[0-9a-zA-Z][0-9a-zA-Z]",
        header_data=pad_to(header.to_bytes(), header_bytes),
    )
    return data + bytes(base - len(data))
