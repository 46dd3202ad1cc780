"""Build an ExecuTorch program: values, kernel and delegate calls, jumps, and the memory plan.

The classes of the serialised form are ExecuTorch 1.5.1's own (`exir/schema.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mobilepack.backends.executorch import container
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Bytes, Layout
from mobilepack.backends.xnnpack.memory import Lifetime, plan_memory
from mobilepack.backends.xnnpack.vendor import ScalarType, et

_ITEM_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int8": 1, "uint8": 1, "bool": 1}
_SCALAR = {
    "float32": ScalarType.FLOAT,
    "float16": ScalarType.HALF,
    "int64": ScalarType.LONG,
    "int8": ScalarType.CHAR,
    "uint8": ScalarType.BYTE,
    "bool": ScalarType.BOOL,
}
_NAMES = {scalar: name for name, scalar in _SCALAR.items()}


@dataclass(frozen=True, slots=True)
class Jump:
    """A forward jump whose destination is not known yet."""

    instruction: int


class ProgramBuilder:
    """One method of a program under construction."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._values: list[et.EValue] = []
        self._instructions: list[et.Instruction] = []
        self._operators: dict[tuple[str, str], int] = {}
        self._delegates: list[et.BackendDelegate] = []
        self._bound: list[dict[int, int]] = []
        self._operands: dict[tuple[int, tuple[int, ...]], int] = {}
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._scalars: dict[tuple[str, object], int] = {}
        self._planned: dict[int, int] = {}
        self._root: dict[int, int] = {}
        self._persistent: set[int] = set()
        self._regions: dict[int, int] = {}
        self.kernel_calls: dict[str, int] = {}
        self.linears: list[str] = []

    # --- values ---

    def integer(self, value: int) -> int:
        """Return the index of an int constant."""
        return self._scalar("int", value, et.Int(int_val=value))

    def boolean(self, value: bool) -> int:
        """Return the index of a bool constant."""
        return self._scalar("bool", value, et.Bool(bool_val=value))

    def double(self, value: float) -> int:
        """Return the index of a float constant."""
        return self._scalar("double", value, et.Double(double_val=value))

    def null(self) -> int:
        """Return the index of None."""
        return self._scalar("null", None, et.Null())

    def integers(self, values: Sequence[int]) -> int:
        """Return the index of a list of ints, given the indices of its items."""
        return self._add(et.IntList(items=list(values)))

    def tensors(self, values: Sequence[int]) -> int:
        """Return the index of a list of tensors, which kernels with several results give."""
        return self._add(et.TensorList(items=list(values)))

    def scalar_output(self, kind: type[int] | type[bool] = int) -> int:
        """Return the index of an int or bool that a kernel writes."""
        value = et.Bool(bool_val=False) if kind is bool else et.Int(int_val=0)
        return self._add(value)

    def input(self, shape: Sequence[int], dtype: str, *, dynamic: bool) -> int:
        """Add a method input, in call order."""
        index = self._tensor(shape, dtype, dynamic=dynamic)
        self._inputs.append(index)
        return index

    def constant(self, shape: Sequence[int], dtype: str, buffer: int) -> int:
        """Add a tensor of the constant segment; `buffer` comes from `Layout.constant`."""
        return self._tensor(shape, dtype, dynamic=False, buffer=buffer)

    def tensor(self, shape: Sequence[int], dtype: str = "float32", *, dynamic: bool = True) -> int:
        """Add an intermediate tensor; `shape` is its upper bound."""
        index = self._tensor(shape, dtype, dynamic=dynamic)
        self._planned[index] = math.prod(shape) * _ITEM_BYTES[dtype]
        self._root[index] = index
        return index

    def state(self, shape: Sequence[int], dtype: str = "float32") -> int:
        """Add a tensor that keeps its content between calls."""
        index = self.tensor(shape, dtype, dynamic=False)
        self._persistent.add(index)
        return index

    def view(self, of: int, shape: Sequence[int] | None = None, *, dynamic: bool = False) -> int:
        """Add a second name for a tensor's memory, of the same element type."""
        tensor = self._values[of].val
        sizes = tensor.sizes if shape is None else shape
        index = self._tensor(sizes, _NAMES[tensor.scalar_type], dynamic=dynamic)
        self._root[index] = self._root[of]
        return index

    def output(self, index: int) -> None:
        """Make a tensor a method output, in order."""
        self._outputs.append(index)

    # --- instructions ---

    def kernel(self, name: str, overload: str, *args: int) -> None:
        """Call a registered kernel; out tensors are given twice, as argument and as result."""
        operator = self._operators.setdefault((name, overload), len(self._operators))
        self.kernel_calls[name] = self.kernel_calls.get(name, 0) + 1
        self._emit(et.KernelCall(op_index=operator, args=list(args)))

    def resize(self, tensor: int, sizes: int) -> None:
        """Set a tensor's sizes without touching its memory.

        `aten::empty` is the one kernel that does just that; on a view it exposes the first part of
        what another name holds, which `slice_copy` would copy.

        Args:
            tensor: Whose sizes are set.
            sizes: From `integers`.
        """
        self.kernel("aten::empty", "out", sizes, self.null(), tensor, tensor)

    def add_delegate(self, graph: Graph) -> int:
        """Store an XNNPACK graph; returns the delegate's index."""
        blob = graph.serialise()
        self.linears += graph.linears
        segment = self.layout.segment(len(blob), Bytes(blob))
        reference = et.BackendDelegateDataReference(location=et.DataLocation.SEGMENT, index=segment)
        self._delegates.append(
            et.BackendDelegate(id="XnnpackBackend", processed=reference, compile_specs=[])
        )
        self._bound.append(
            {at: self._operand(buffer, shape) for at, (buffer, shape) in graph.bound.items()}
        )
        return len(self._delegates) - 1

    def call_delegate(self, delegate: int, *args: int) -> None:
        """Call a delegate with its external values in order; it has its constants already."""
        bound, given = self._bound[delegate], iter(args)
        count = len(bound) + len(args)
        values = [bound[at] if at in bound else next(given) for at in range(count)]
        self._emit(et.DelegateCall(delegate_index=delegate, args=values))

    def jump_if_false(self, condition: int) -> Jump:
        """Jump when a bool value is false; `land` sets the destination."""
        self._emit(et.JumpFalseCall(cond_value_index=condition, destination_instruction=-1))
        return Jump(len(self._instructions) - 1)

    def jump(self) -> Jump:
        """Jump always."""
        return self.jump_if_false(self.boolean(False))

    def land(self, jump: Jump) -> None:
        """Make the next instruction the destination of a jump."""
        call = self._instructions[jump.instruction].instr_args
        call.destination_instruction = len(self._instructions)

    def here(self) -> int:
        """Return the next instruction, for `back_if_false`."""
        return len(self._instructions)

    def back_if_false(self, condition: int, to: int) -> None:
        """Jump back to an earlier instruction of the same region when a bool value is false."""
        self._emit(et.JumpFalseCall(cond_value_index=condition, destination_instruction=to))

    @contextmanager
    def region(self) -> Iterator[None]:
        """Hold instructions with jumps of their own, forward or back, none out of them.

        For the memory plan they are one instruction that uses all their tensors at once.
        """
        start = len(self._instructions)
        yield
        if len(self._instructions) > start:
            self._regions[start] = len(self._instructions)

    # --- result ---

    @property
    def delegate_count(self) -> int:
        """Number of delegates stored."""
        return len(self._delegates)

    def finish(self, name: str) -> tuple[et.ExecutionPlan, dict[str, int]]:
        """Plan the memory and return the method with its bytes of `states` and `activations`."""
        offsets, total = self._plan()
        for index, root in self._root.items():
            self._values[index].val.allocation_info = _allocation(offsets.get(root, 0))
        plan = et.ExecutionPlan(
            name=name,
            container_meta_type=container(len(self._inputs), len(self._outputs)),
            values=self._values,
            inputs=self._inputs,
            outputs=self._outputs,
            chains=[
                et.Chain(inputs=[], outputs=[], instructions=self._instructions, stacktrace=None)
            ],
            operators=[et.Operator(name=n, overload=o) for n, o in self._operators],
            delegates=self._delegates,
            non_const_buffer_sizes=[0, total],
        )
        states = sum(self._planned[index] for index in self._persistent)
        return plan, {"states": states, "activations": total - states}

    def _plan(self) -> tuple[dict[int, int], int]:
        """Place every tensor; two share bytes if no way through the program uses both at once."""
        uses = self._uses()
        paths = self._paths()
        spans = {i: [_span(at, path) for path in paths] for i, at in uses.items()}

        def meet(one: Lifetime, other: Lifetime) -> bool:
            pairs = zip(spans[one.index], spans[other.index], strict=True)
            return any(a and b and a[0] <= b[1] and b[0] <= a[1] for a, b in pairs)

        return plan_memory(
            (Lifetime(i, self._planned[i], min(at), max(at)) for i, at in uses.items()), meet
        )

    def _uses(self) -> dict[int, list[int]]:
        """Return the instructions that use each tensor's memory; unused ones are left out."""
        uses: dict[int, list[int]] = {}
        at = 0
        for position, instruction in enumerate(self._instructions):
            inside = position < self._regions.get(at, 0)
            at = at if inside else position
            for index in self._tensors_of(instruction.instr_args):
                uses.setdefault(self._root[index], []).append(at)
        last = len(self._instructions)
        for index in self._outputs:
            uses.setdefault(self._root[index], []).append(last)
        for index in self._persistent:
            uses.setdefault(index, []).extend((0, last))
        return uses

    def _tensors_of(self, call: object) -> Iterator[int]:
        """Return the planned tensors among a call's arguments, those in lists included."""
        for index in getattr(call, "args", ()):
            value = self._values[index].val
            items = value.items if isinstance(value, et.TensorList) else (index,)
            yield from (item for item in items if item in self._root)

    def _paths(self) -> list[frozenset[int]]:
        """Return every way through the program as the instructions it meets, the end included."""
        never = self._scalars.get(("bool", False))
        end = len(self._instructions)
        waiting: list[tuple[int, frozenset[int]]] = [(0, frozenset())]
        paths = []
        while waiting:
            position, met = waiting.pop()
            while position < end:
                met |= {position}
                if position in self._regions:
                    position = self._regions[position]
                    continue
                call = self._instructions[position].instr_args
                position += 1
                if isinstance(call, et.JumpFalseCall):
                    if call.cond_value_index != never:
                        waiting.append((position, met))
                    position = call.destination_instruction
            paths.append(met | {end})
        return paths

    def _operand(self, buffer: int, shape: tuple[int, ...]) -> int:
        if (buffer, shape) not in self._operands:
            self._operands[buffer, shape] = self.constant(shape, "float32", buffer)
        return self._operands[buffer, shape]

    def _scalar(self, kind: str, value: object, evalue: object) -> int:
        if (kind, value) not in self._scalars:
            self._scalars[kind, value] = self._add(evalue)
        return self._scalars[kind, value]

    def _tensor(self, shape: Sequence[int], dtype: str, *, dynamic: bool, buffer: int = 0) -> int:
        shapes = et.TensorShapeDynamism
        return self._add(
            et.Tensor(
                scalar_type=_SCALAR[dtype],
                storage_offset=0,
                sizes=list(shape),
                dim_order=list(range(len(shape))),
                requires_grad=False,
                layout=0,
                data_buffer_idx=buffer,
                allocation_info=None,
                shape_dynamism=shapes.DYNAMIC_BOUND if dynamic else shapes.STATIC,
            )
        )

    def _add(self, value: object) -> int:
        self._values.append(et.EValue(val=value))
        return len(self._values) - 1

    def _emit(self, call: object) -> None:
        self._instructions.append(et.Instruction(instr_args=call))


def _span(at: Sequence[int], path: frozenset[int]) -> tuple[int, int] | None:
    """Return the first and last of the instructions that a path meets."""
    met = [position for position in at if position in path]
    return (min(met), max(met)) if met else None


def _allocation(offset: int) -> et.AllocationDetails:
    return et.AllocationDetails(
        memory_id=1, memory_offset_low=offset & 0xFFFFFFFF, memory_offset_high=offset >> 32
    )
