"""The values of one XNNPACK subgraph: inputs, outputs, named constants, and its serialised form.

Shapes are upper bounds; XNNPACK derives the actual ones from the inputs of each call. A value is
known by its integer id. The classes of the serialised form come from ExecuTorch 1.5.1
(`backends/xnnpack/serialization`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from mobilepack.backends.xnnpack.layout import Content, Layout, filled
from mobilepack.backends.xnnpack.memory import Lifetime, plan_memory
from mobilepack.backends.xnnpack.vendor import serialize_xnnpack_binary, xnn

INVALID = 0xFFFFFFFF  # XNN_INVALID_VALUE_ID in xnnpack.h
_NAMED = 0xFFFFFFFFFFFFFFFF  # "look the constant up by its key", XNNCompiler.cpp of 1.5.1
_EXTERNAL_INPUT, _EXTERNAL_OUTPUT = 1, 2  # XNN_VALUE_FLAG_EXTERNAL_* in xnnpack.h

Element = Literal["float32", "float16", "int8"]
"""`int8` stands for numbers in [-1, 1]: the integer divided by 127."""
FP32 = xnn.XNNDatatype.xnn_datatype_fp32
ELEMENTS = {
    "float32": FP32,
    "float16": xnn.XNNDatatype.xnn_datatype_fp16,
    "int8": xnn.XNNDatatype.xnn_datatype_qint8,
}
UNIT = {"int8": xnn.PerTensorQuant(scale=1 / 127, zero_point=0)}


class Values:
    """What the operators of one delegate's subgraph read and write."""

    def __init__(self, layout: Layout) -> None:
        """Start with nothing; constants go into `layout`.

        Attributes:
            bound: Constants among the external values: position to (buffer index, shape).
            linears: Names of the weights of the linear maps, in their order.
        """
        self.linears: list[str] = []
        self._keys: dict[int, str] = {}
        self.bound: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._layout = layout
        self._nodes: list[xnn.XNode] = []
        self._values: list[xnn.XValue] = []
        self._shapes: list[tuple[int, ...]] = []
        self._types: list[object] = []
        self._is_constant: list[bool] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._constants = [xnn.ConstantDataOffset(0, 0)]
        self._vectors: dict[str, int] = {}
        self._quantised: dict[int, int] = {}
        self._externals = 0

    def __len__(self) -> int:
        """Return the number of operators."""
        return len(self._nodes)

    def shape(self, value: int) -> tuple[int, ...]:
        """Return a value's upper-bound shape."""
        return self._shapes[value]

    def input(self, shape: Sequence[int], element: Element = "float32") -> int:
        """Add an external input; inputs and outputs are numbered in order of creation."""
        value = self._value(shape, ELEMENTS[element], UNIT.get(element), external=_EXTERNAL_INPUT)
        self._inputs.append(value)
        return value

    def output(self, shape: Sequence[int], element: Element = "float32") -> int:
        """Add an external output, to be given as `out` to the operator that makes it."""
        value = self._value(shape, ELEMENTS[element], UNIT.get(element), external=_EXTERNAL_OUTPUT)
        self._outputs.append(value)
        return value

    def packed(self, key: str, shape: Sequence[int]) -> int:
        """Refer to a named float32 constant that XNNPACK packs: weights or bias of `linear`.

        Nothing else may: with a weight cache, ExecuTorch frees named constants once packed.
        """
        if key not in self._vectors:
            self._vectors[key] = self._value(shape, constant=self._constant(key))
            self._keys[self._vectors[key]] = key
        return self._vectors[key]

    def operand(self, constant: tuple[str, int, Content], shape: Sequence[int]) -> int:
        """Refer to a float32 constant (key, bytes, content) that XNNPACK reads at every call.

        It is an external input; `bound` says which one, and `ProgramBuilder` passes it.
        """
        key, size, content = constant
        if key not in self._vectors:
            buffer = self._layout.keep(key, size, content)
            self.bound[self._externals] = (buffer, tuple(shape))
            self._vectors[key] = self.input(shape)
        return self._vectors[key]

    def fill(self, length: int, value: float) -> str:
        """Name a float32 vector of equal numbers for `packed`."""
        key, size, content = filled(length, value)
        self._layout.name(key, size, content)
        return key

    def int4_weights(self, key: str, shape: tuple[int, int], group: int) -> int:
        """Refer to int4 weights `[rows, columns]` with a bf16 scale per `group` columns."""
        rows, columns = shape
        quantisation = xnn.PerChannelGroupQuant(
            scale=[],
            channel_dim=0,
            group_size=group,
            scale_buffer_idx=self._constant(key + ".scales"),
            num_scales=rows * (columns // group),
        )
        return self._matrix(key, shape, xnn.XNNDatatype.xnn_datatype_qbint4, quantisation)

    def int8_weights(self, key: str, shape: tuple[int, int]) -> int:
        """Refer to int8 weights `[rows, columns]` with a float32 scale per row."""
        quantisation = xnn.PerChannelQuant(
            scale=[],
            channel_dim=0,
            scale_buffer_idx=self._constant(key + ".scales"),
            num_scales=shape[0],
        )
        return self._matrix(key, shape, xnn.XNNDatatype.xnn_datatype_qcint8, quantisation)

    def _matrix(
        self, key: str, shape: tuple[int, int], datatype: object, quantisation: object
    ) -> int:
        value = self._value(shape, datatype, quantisation, constant=self._constant(key))
        self._keys[value] = key
        return value

    def workspace_bytes(self) -> int:
        """Return the memory of the intermediate values at their bounds, placed without overlap.

        An estimate: XNNPACK plans its workspace by the same greedy rule, but rounds differently.
        """
        return plan_memory(self._lifetimes())[1]

    def serialise(self) -> bytes:
        """Return the delegate's blob."""
        graph = xnn.XNNGraph(
            version="0",
            xnodes=self._nodes,
            xvalues=self._values,
            num_externs=self._externals,
            input_ids=self._inputs,
            output_ids=self._outputs,
            constant_data=self._constants,
        )
        return bytes(serialize_xnnpack_binary(graph, bytearray()))

    def _lifetimes(self) -> Iterator[Lifetime]:
        external = {*self._inputs, *self._outputs}
        uses: dict[int, list[int]] = {}
        for position, node in enumerate(self._nodes):
            for name, value in vars(node.xnode_union).items():
                if name.endswith("_id") and value != INVALID:
                    uses.setdefault(value, []).append(position)
        for value, at in uses.items():
            if value not in external and not self._is_constant[value]:
                yield Lifetime(value, self._bytes(value), min(at), max(at))

    def _bytes(self, value: int) -> int:
        width = {FP32: 4, ELEMENTS["float16"]: 2}.get(self._types[value], 1)
        return math.prod(self._shapes[value]) * width

    def _add(self, node: object, limits: object = None) -> None:
        handle = len(self._nodes)
        self._nodes.append(xnn.XNode(xnode_union=node, debug_handle=handle, output_min_max=limits))

    def _constant(self, key: str) -> int:
        size = self._layout.named_bytes(key)
        self._constants.append(xnn.ConstantDataOffset(offset=_NAMED, size=size, named_key=key))
        return len(self._constants) - 1

    def _value(
        self,
        shape: Sequence[int],
        datatype: object = FP32,
        quantisation: object = None,
        *,
        external: int = 0,
        constant: int = 0,
    ) -> int:
        identifier = len(self._values)
        external_id = INVALID
        if external:
            external_id, self._externals = self._externals, self._externals + 1
        tensor = xnn.XNNTensorValue(
            datatype=datatype,
            num_dims=len(shape),
            dims=list(shape),
            constant_buffer_idx=constant,
            external_id=external_id,
            flags=external,
            id_out=identifier,
        )
        union = tensor
        if quantisation is not None:
            union = xnn.XNNQuantizedTensorValue(tensor_value=tensor, quant_params=quantisation)
        self._values.append(xnn.XValue(xvalue_union=union))
        self._shapes.append(tuple(shape))
        self._types.append(datatype)
        self._is_constant.append(constant > 0)
        return identifier
