"""Write a program whose methods are context binaries, one delegate each, in a fixed order.

The file is ExecuTorch's (schema of 1.5.1); its values are the methods' inputs and outputs, and the
delegates' data follow as segments, written one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mobilepack.backends.executorch import (
    PAGE_BYTES,
    ScalarType,
    aligned_size,
    constant_method,
    container,
    et,
    head_of,
)
from mobilepack.backends.qnn.graph import Graph, Tensor

_ITEM_BYTES = {"float32": 4, "int32": 4, "uint16": 2, "uint8": 1}
_ALIGNMENT = 64  # of tensors in the planned memory

Integer = int | bool | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A delegate: one graph of one context.

    Attributes:
        inputs: Names that the graph binds, in its order.
        outputs: Likewise.
        context: Index of the binary.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    context: int


@dataclass(frozen=True, slots=True)
class MethodPlan:
    """A method of the program.

    Attributes:
        graph: Says shapes, and the order of the method's own inputs and outputs.
        kinds: Element type of every tensor that is bound, by name.
        parts: Delegates in the order of their calls.
        between: Tensors that pass from one part to the next.
    """

    graph: Graph
    kinds: Mapping[str, str]
    parts: tuple[Part, ...]
    between: tuple[Tensor, ...] = ()


def write_program(
    path: Path,
    methods: Mapping[str, MethodPlan],
    contexts: Sequence[bytes],
    compile_spec: bytes,
    metadata: Mapping[str, Integer],
) -> None:
    """Write the program.

    Args:
        contexts: Binaries as `QnnManager.Compile` returned them.
        compile_spec: ExecuTorch's QNN options, serialised.
        metadata: Constant methods.
    """
    plans = [_plan(name, method, compile_spec) for name, method in methods.items()]
    plans += [constant_method(name, value) for name, value in metadata.items()]
    segments, offset = [], 0
    for context in contexts:
        segments.append(et.DataSegment(offset=offset, size=len(context)))
        offset += aligned_size(len(context), PAGE_BYTES)
    segments.append(et.DataSegment(offset=offset, size=0))  # constants: none, but it must be there
    program = et.Program(
        version=0,
        execution_plan=plans,
        constant_buffer=[],
        backend_delegate_data=[],
        segments=segments,
        constant_segment=et.SubsegmentOffsets(segment_index=len(contexts), offsets=[0]),
        mutable_data_segments=None,
        named_data=[],
    )
    head = head_of(program, offset)
    with path.open("wb") as file:
        for part in (head, *contexts):
            file.write(part)
            file.write(bytes(-file.tell() % PAGE_BYTES))


def _plan(name: str, method: MethodPlan, compile_spec: bytes) -> et.ExecutionPlan:
    values: list[Any] = []
    index: dict[str, int] = {}
    offset = 0
    for tensor in (*method.graph.inputs, *method.graph.outputs, *method.between):
        kind = method.kinds[tensor.name]
        index[tensor.name] = len(values)
        values.append(et.EValue(val=_value(tensor.shape, kind, offset)))
        size = math.prod(tensor.shape) * _ITEM_BYTES[kind]
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    calls, delegates = [], []
    for number, part in enumerate(method.parts):
        bound = [index[n] for n in (*part.inputs, *part.outputs)]
        call = et.DelegateCall(delegate_index=number, args=bound)
        calls.append(et.Instruction(instr_args=call))
        where = et.BackendDelegateDataReference(
            location=et.DataLocation.SEGMENT, index=part.context
        )
        spec = et.CompileSpec(key="qnn_compile_spec", value=compile_spec)
        delegates.append(et.BackendDelegate(id="QnnBackend", processed=where, compile_specs=[spec]))
    inputs = [index[t.name] for t in method.graph.inputs]
    outputs = [index[t.name] for t in method.graph.outputs]
    return et.ExecutionPlan(
        name=name,
        container_meta_type=container(len(inputs), len(outputs)),
        values=values,
        inputs=inputs,
        outputs=outputs,
        chains=[et.Chain(inputs=[], outputs=[], instructions=calls, stacktrace=None)],
        operators=[],
        delegates=delegates,
        non_const_buffer_sizes=[0, offset],
    )


def _value(shape: Sequence[int], kind: str, offset: int) -> et.Tensor:
    scalars = {
        "float32": ScalarType.FLOAT,
        "int32": ScalarType.INT,
        "uint16": cast(Any, ScalarType).UINT16,
        "uint8": ScalarType.BYTE,
    }
    return et.Tensor(
        scalar_type=scalars[kind],
        storage_offset=0,
        sizes=list(shape),
        dim_order=list(range(len(shape))),
        requires_grad=False,
        layout=0,
        data_buffer_idx=0,
        allocation_info=et.AllocationDetails(
            memory_id=1, memory_offset_low=offset & 0xFFFFFFFF, memory_offset_high=offset >> 32
        ),
        shape_dynamism=et.TensorShapeDynamism.STATIC,
    )
