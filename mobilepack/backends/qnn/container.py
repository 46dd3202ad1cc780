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

from mobilepack.backends.qnn.graph import Graph, Tensor

_ITEM_BYTES = {"float32": 4, "int32": 4, "uint16": 2, "uint8": 1}
_PAGE = 4096
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
    from executorch.exir import schema as et
    from executorch.exir._serialize import _program as serialise
    from executorch.exir._serialize.padding import aligned_size, pad_to

    plans = [_plan(et, name, method, compile_spec) for name, method in methods.items()]
    plans += [_constant(et, name, value) for name, value in metadata.items()]
    segments, offset = [], 0
    for context in contexts:
        segments.append(et.DataSegment(offset=offset, size=len(context)))
        offset += aligned_size(len(context), _PAGE)
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
    flat = serialise._program_to_flatbuffer(
        program, constant_tensor_alignment=None, delegate_alignment=None
    )
    length = aligned_size(serialise._ExtendedHeader.EXPECTED_LENGTH, flat.max_alignment)
    size = length + len(flat.data)
    header = serialise._ExtendedHeader(
        program_size=size, segment_base_offset=aligned_size(size, _PAGE), segment_data_size=offset
    )
    head = serialise._insert_flatbuffer_header(
        flatbuffer_data=flat.data,
        magic_regex=r"ET[0-9a-zA-Z][0-9a-zA-Z]",
        header_data=pad_to(header.to_bytes(), length),
    )
    with path.open("wb") as file:
        for part in (head, *contexts):
            file.write(part)
            file.write(bytes(-file.tell() % _PAGE))


def _plan(et: Any, name: str, method: MethodPlan, compile_spec: bytes) -> Any:
    values: list[Any] = []
    index: dict[str, int] = {}
    offset = 0
    for tensor in (*method.graph.inputs, *method.graph.outputs, *method.between):
        kind = method.kinds[tensor.name]
        index[tensor.name] = len(values)
        values.append(et.EValue(val=_value(et, tensor.shape, kind, offset)))
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
        container_meta_type=_container(et, len(inputs), len(outputs)),
        values=values,
        inputs=inputs,
        outputs=outputs,
        chains=[et.Chain(inputs=[], outputs=[], instructions=calls, stacktrace=None)],
        operators=[],
        delegates=delegates,
        non_const_buffer_sizes=[0, offset],
    )


def _value(et: Any, shape: Sequence[int], kind: str, offset: int) -> Any:
    from executorch.exir.scalar_type import ScalarType

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


def _constant(et: Any, name: str, value: Integer) -> Any:
    items = value if isinstance(value, tuple) else (value,)
    values = [
        et.EValue(val=et.Bool(bool_val=item) if isinstance(item, bool) else et.Int(int_val=item))
        for item in items
    ]
    return et.ExecutionPlan(
        name=name,
        container_meta_type=_container(et, 0, len(items)),
        values=values,
        inputs=[],
        outputs=list(range(len(values))),
        chains=[et.Chain(inputs=[], outputs=[], instructions=[], stacktrace=None)],
        operators=[],
        delegates=[],
        non_const_buffer_sizes=[0, 0],
    )


def _container(et: Any, inputs: int, outputs: int) -> Any:
    """Describe the calling convention in torch's pytree notation (treespec protocol 1)."""
    leaf = '{"type": null, "context": null, "children_spec": []}'

    def tuple_of(count: int) -> str:
        head = '{"type": "builtins.tuple", "context": "null", "children_spec": '
        return f"{head}[{', '.join([leaf] * count)}]}}"

    no_keywords = '{"type": "builtins.dict", "context": "[]", "children_spec": []}'
    call = '{"type": "builtins.tuple", "context": "null", "children_spec": '
    return et.ContainerMetadata(
        encoded_inp_str=f"[1, {call}[{tuple_of(inputs)}, {no_keywords}]}}]",
        encoded_out_str=f"[1, {leaf if outputs == 1 else tuple_of(outputs)}]",
    )
