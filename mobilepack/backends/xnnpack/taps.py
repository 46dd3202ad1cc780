"""Give a package's own program more outputs: the values of chosen nodes of the exported graph.

The instructions, weights and delegates stay those of the file. A value outside the delegates is
copied where it has just been made; a delegate with a value inside is called in a copy of it that
gives the value out.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mobilepack.backends.executorch import aligned_size, container, head_of
from mobilepack.backends.xnnpack.align import Alignment, Difference
from mobilepack.backends.xnnpack.layout import HeadRows
from mobilepack.backends.xnnpack.lower import BARRIERS, Lowering
from mobilepack.backends.xnnpack.lowered import CarryStep, DelegateStep, Lowered, Place
from mobilepack.backends.xnnpack.operands import Parts, Rotation
from mobilepack.backends.xnnpack.read import ReadProgram, read_file, read_lowered
from mobilepack.backends.xnnpack.vendor import (
    ScalarType,
    et,
    serialize_xnnpack_binary,
    xnn,
)
from mobilepack.models.graph import arguments, fixed, operators

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_EMBEDDING = torch.ops.aten.embedding.default
_ROPE = torch.ops.mobilepack.rope.default
_EXTERNAL_OUTPUT = 2  # XNN_VALUE_FLAG_EXTERNAL_OUTPUT in xnnpack.h
_FLOATS = {
    xnn.XNNDatatype.xnn_datatype_fp32: ScalarType.FLOAT,
    xnn.XNNDatatype.xnn_datatype_fp16: ScalarType.HALF,
}
_ALIGNMENT = 128


@dataclass(frozen=True, slots=True)
class Tap:
    """Where a node's value can be read: after an instruction, in a tensor or inside a delegate.

    Attributes:
        instruction: Of the package's program.
        tensors: Values of the program, or, with `inside`, of the delegate's graph.
        rows: Channels of each head that each of them holds; empty for the whole value.
    """

    instruction: int
    tensors: tuple[int, ...]
    inside: bool
    rows: tuple[HeadRows, ...] = ()

    def assembled(self, parts: Sequence[npt.NDArray[np.floating]]) -> npt.NDArray[np.float32]:
        """Return the node's value, `[1, seq, channels]` or `[1, channels]`."""
        if not self.rows:
            (whole,) = parts
            flat = whole.astype(np.float32)
            return flat if flat.ndim < 4 else flat.reshape(*flat.shape[:2], -1)
        split = parts if len(parts) > 1 else np.split(parts[0], _ends(self.rows), axis=-1)
        *lead, _ = split[0].shape
        result = np.empty((*lead, self.rows[0].period), np.float32)
        for part, rows in zip(split, self.rows, strict=True):
            result[..., rows.start : rows.stop : rows.step] = part
        return result.reshape(*lead[:2], -1)


def _ends(rows: Sequence[HeadRows]) -> list[int]:
    return [int(end) for end in np.cumsum([one.count(one.period) for one in rows])[:-1]]


class Taps:
    """Finds the taps of a package's program."""

    def __init__(self, path: Path, lowering: Lowering, lowered: Lowered, exported: ExportedProgram):
        """Read the program and align it with a fresh lowering.

        Args:
            path: Of the package's program.
            lowering: After its walk over the package's model.
            lowered: What the walk gave.
            exported: What was walked.
        """
        self.path = path
        self.found = read_file(path)
        self._lowering = lowering
        self._alignment = Alignment(read_lowered(lowered), self.found)
        nodes = operators(exported)
        barriers = [n for n in nodes if n.target in BARRIERS and n.target is not _EMBEDDING]
        self._embedding = next(n for n in nodes if n.target is _EMBEDDING)
        self._places: dict[tuple[Node, bool], Place] = {}
        for many in (True, False):
            self._place(many, barriers)

    def _place(self, many: bool, barriers: Sequence[Node]) -> None:
        places = [place for place in self._lowering.places if place.many_tokens == many]
        outer = [p for p in places if not isinstance(p.step, DelegateStep | CarryStep)]
        self._places |= {(n, many): p for n, p in zip(barriers, outer, strict=bool(outer))}
        for place in places:
            if isinstance(place.step, DelegateStep):
                segment = self._lowering.segments[place.step.delegate]
                self._places |= {(node, many): place for node in segment.made}

    def differences(self) -> tuple[tuple[Difference, Node | None], ...]:
        """Return what is built differently, each with the first node of its instruction's step."""
        return tuple((one, self._node_at(one.instruction)) for one in self._alignment.differences())

    def _node_at(self, instruction: int) -> Node | None:
        for (node, _), place in self._places.items():
            if place.start <= instruction < place.end:
                return node
        return None

    def tap(self, node: Node, *, many: bool) -> Tap | None:
        """Return where a node's value is when a call has many tokens or one; None if nowhere."""
        if node is self._embedding:
            places = [p for p in self._lowering.places if p.many_tokens == many]
            start = min((p.start for p in places), default=None)
            # the first step only reads it, and jumps into the branch would skip what is before
            return None if start is None else self._outside(node, start)
        place = self._places.get((node, many))
        if place is None:
            return None
        if isinstance(place.step, DelegateStep):
            return self._inside(node, place)
        return self._outside(node, place.end - 1)

    def _outside(self, node: Node, instruction: int) -> Tap | None:
        at = self._alignment.instructions.get(instruction)
        tensor = self._alignment.values.get(self._lowering.tensors.get(node, -1))
        return None if at is None or tensor is None else Tap(at, (tensor,), inside=False)

    def _inside(self, node: Node, place: Place) -> Tap | None:
        pair = self._alignment.inside(place.start)
        if pair is None or not isinstance(place.step, DelegateStep):
            return None
        value = self._lowering.segments[place.step.delegate].values[node]
        wanted = value.values if isinstance(value, Parts) else (value,)
        rows = value.rows if isinstance(value, Parts) else _rotated(node)
        if any(one not in pair.values for one in wanted):
            return None
        ids = tuple(pair.values[one] for one in wanted)
        tensors = [_tensor(pair.found, one) for one in ids]
        if any(one is None for one in tensors):
            return None
        at = self._alignment.instructions[place.start]
        outer = [one.external_id for one in tensors if one is not None and one.flags]
        if len(outer) == len(ids):
            args = self.found.instructions[at].args  # type: ignore[attr-defined]
            return Tap(at, tuple(args[one] for one in outer), inside=False, rows=rows)
        return None if outer else Tap(at, ids, inside=True, rows=rows)


def _rotated(node: Node) -> tuple[HeadRows, ...]:
    """Return the order of channels that a rotation leaves; nothing where it is the usual one."""
    if node.target is not _ROPE:
        return ()
    _, cos, _, _, heads, interleaved = arguments(node)
    if not interleaved:
        return ()
    width = fixed(node, -1) // heads
    return Rotation(heads, width, fixed(cos, 1), interleaved=True).rows


def _tensor(graph: xnn.XNNGraph, value: int) -> xnn.XNNTensorValue | None:
    """Return a value of a graph if it holds floats."""
    union = next(v.xvalue_union for v in graph.xvalues if _identity(v) == value)
    return union if isinstance(union, xnn.XNNTensorValue) and union.datatype in _FLOATS else None


def _identity(value: xnn.XValue) -> int:
    union = value.xvalue_union
    tensor = union if isinstance(union, xnn.XNNTensorValue) else union.tensor_value
    return int(tensor.id_out)


def write_tapped(path: Path, found: ReadProgram, source: Path, taps: Sequence[Tap]) -> None:
    """Write a program with the taps' tensors as further outputs, in order."""
    program = copy.deepcopy(found.program)
    editor = _Editor(ReadProgram(program, found.base, found.segment), source)
    for tap in taps:
        editor.add(tap)
    editor.write(path)


class _Editor:
    """Changes one program; instructions are inserted when it is written."""

    def __init__(self, found: ReadProgram, source: Path) -> None:
        self._found, self._source = found, source
        self._plan = found.plan
        self._after: dict[int, list[et.Instruction]] = {}
        self._graphs: dict[int, xnn.XNNGraph] = {}
        self._end = source.stat().st_size - found.base
        self._blobs: list[tuple[int, bytes]] = []

    def add(self, tap: Tap) -> None:
        """Make a tap's tensors outputs."""
        for tensor in tap.tensors:
            inner = self._give_out if tap.inside else self._copy
            self._plan.outputs.append(inner(tap.instruction, tensor))

    def _copy(self, instruction: int, tensor: int) -> int:
        source = self._plan.values[tensor].val
        out = self._tensor(source.sizes, source.scalar_type)
        zero, one, end = (self._value(et.Int(int_val=n)) for n in (0, 1, 2**40))
        args = [tensor, zero, zero, end, one, out, out]
        call = et.KernelCall(op_index=self._operator("aten::slice_copy", "Tensor_out"), args=args)
        self._after.setdefault(instruction, []).append(et.Instruction(instr_args=call))
        return out

    def _give_out(self, instruction: int, value: int) -> int:
        call = self._plan.chains[0].instructions[instruction].instr_args
        if instruction not in self._graphs:
            self._graphs[instruction] = copy.deepcopy(self._found.graph(call.delegate_index))
        graph = self._graphs[instruction]
        tensor = _tensor(graph, value)
        assert tensor is not None  # noqa: S101 - `Taps` has looked
        tensor.external_id, tensor.flags = graph.num_externs, _EXTERNAL_OUTPUT
        graph.num_externs += 1
        graph.output_ids.append(value)
        out = self._tensor(tensor.dims, _FLOATS[tensor.datatype])
        call.args.append(out)
        return out

    def _tensor(self, sizes: Sequence[int], kind: ScalarType) -> int:
        """Add a tensor with memory of its own."""
        width = 2 if kind == ScalarType.HALF else 8 if kind == ScalarType.LONG else 4
        buffers = self._plan.non_const_buffer_sizes
        offset = aligned_size(buffers[1], _ALIGNMENT)
        buffers[1] = offset + width * int(np.prod(sizes))
        return self._value(
            et.Tensor(
                scalar_type=kind,
                storage_offset=0,
                sizes=list(sizes),
                dim_order=list(range(len(sizes))),
                requires_grad=False,
                layout=0,
                data_buffer_idx=0,
                allocation_info=et.AllocationDetails(
                    memory_id=1,
                    memory_offset_low=offset & 0xFFFFFFFF,
                    memory_offset_high=offset >> 32,
                ),
                shape_dynamism=et.TensorShapeDynamism.DYNAMIC_BOUND,
            )
        )

    def _value(self, value: object) -> int:
        self._plan.values.append(et.EValue(val=value))
        return len(self._plan.values) - 1

    def _operator(self, name: str, overload: str) -> int:
        wanted = et.Operator(name=name, overload=overload)
        if wanted not in self._plan.operators:
            self._plan.operators.append(wanted)
        return int(self._plan.operators.index(wanted))

    def write(self, path: Path) -> None:
        """Write the head, the file's own segments, and the changed delegates."""
        for instruction, graph in self._graphs.items():
            blob = serialize_xnnpack_binary(graph, bytearray())
            self._blobs.append((self._append(len(blob)), blob))
            index = len(self._found.program.segments) - 1
            where = et.BackendDelegateDataReference(location=et.DataLocation.SEGMENT, index=index)
            self._plan.delegates.append(
                et.BackendDelegate(id="XnnpackBackend", processed=where, compile_specs=[])
            )
            call = self._plan.chains[0].instructions[instruction].instr_args
            call.delegate_index = len(self._plan.delegates) - 1
        self._insert()
        outputs = container(len(self._plan.inputs), len(self._plan.outputs))
        self._plan.container_meta_type = outputs
        head = head_of(self._found.program, self._end)
        with self._source.open("rb") as source, path.open("wb") as out:
            out.write(head)
            source.seek(self._found.base)
            shutil.copyfileobj(source, out, 1 << 22)
            for offset, blob in self._blobs:
                out.seek(len(head) + offset)
                out.write(blob)
            os.truncate(out.fileno(), len(head) + self._end)

    def _append(self, size: int) -> int:
        offset = aligned_size(self._end, _ALIGNMENT)
        self._end = offset + size
        self._found.program.segments.append(et.DataSegment(offset=offset, size=size))
        return int(offset)

    def _insert(self) -> None:
        chain = self._plan.chains[0]
        places, made = [], list[et.Instruction]()
        for index, instruction in enumerate(chain.instructions):
            places.append(len(made))
            made += [instruction, *self._after.get(index, [])]
        places.append(len(made))
        for instruction in chain.instructions:
            call = instruction.instr_args
            if isinstance(call, et.JumpFalseCall):
                call.destination_instruction = places[call.destination_instruction]
        chain.instructions = made
