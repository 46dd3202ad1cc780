"""Build one XNNPACK subgraph: values, operators and named constants.

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

_INVALID = 0xFFFFFFFF  # XNN_INVALID_VALUE_ID in xnnpack.h
_NAMED = 0xFFFFFFFFFFFFFFFF  # "look the constant up by its key", XNNCompiler.cpp of 1.5.1
_EXTERNAL_INPUT, _EXTERNAL_OUTPUT = 1, 2  # XNN_VALUE_FLAG_EXTERNAL_* in xnnpack.h

Binary = Literal["add", "subtract", "multiply", "divide", "maximum", "minimum"]
Unary = Literal[
    "square", "rsqrt", "sqrt", "sigmoid", "softmax", "gelu", "tanh", "negate", "exp", "log", "abs"
]

_BINARY = {
    "add": xnn.XNNAdd,
    "subtract": xnn.XNNSubtract,
    "multiply": xnn.XNNMultiply,
    "divide": xnn.XNNDiv,
    "maximum": xnn.XNNMaximum,
    "minimum": xnn.XNNMinimum,
}
_UNARY = {
    "square": xnn.XNNSquare,
    "rsqrt": xnn.XNNReciprocalSquareRoot,
    "sigmoid": xnn.XNNSigmoid,
    "softmax": xnn.XNNSoftmax,
    "gelu": xnn.XNNGelu,
    "tanh": xnn.XNNTanh,
    "negate": xnn.XNNNegate,
    "exp": xnn.XNNExp,
    "sqrt": xnn.XNNSquareRoot,
    "log": xnn.XNNLog,
    "abs": xnn.XNNAbs,
}
_CONCATENATE = {2: xnn.XNNConcatenate2, 3: xnn.XNNConcatenate3, 4: xnn.XNNConcatenate4}
Element = Literal["float32", "float16", "int8"]
"""`int8` stands for numbers in [-1, 1]: the integer divided by 127."""
_FP32 = xnn.XNNDatatype.xnn_datatype_fp32
_ELEMENTS = {
    "float32": _FP32,
    "float16": xnn.XNNDatatype.xnn_datatype_fp16,
    "int8": xnn.XNNDatatype.xnn_datatype_qint8,
}
_UNIT = {"int8": xnn.PerTensorQuant(scale=1 / 127, zero_point=0)}
_TRANSPOSE_B = 1  # XNN_FLAG_TRANSPOSE_B in xnnpack.h


class Graph:
    """One delegate's subgraph under construction."""

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
        value = self._value(shape, _ELEMENTS[element], _UNIT.get(element), external=_EXTERNAL_INPUT)
        self._inputs.append(value)
        return value

    def output(self, shape: Sequence[int], element: Element = "float32") -> int:
        """Add an external output, to be given as `out` to the operator that makes it."""
        value = self._value(
            shape, _ELEMENTS[element], _UNIT.get(element), external=_EXTERNAL_OUTPUT
        )
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

    def binary(self, kind: Binary, a: int, b: int, out: int | None = None) -> int:
        """Add an elementwise operator with numpy broadcasting."""
        out = self._value(self._broadcast(a, b), self._types[a]) if out is None else out
        self._add(_BINARY[kind](input1_id=a, input2_id=b, output_id=out, flags=0))
        return out

    def unary(self, kind: Unary, a: int, out: int | None = None) -> int:
        """Add an elementwise operator, or a softmax over the last axis."""
        out = self._value(self._shapes[a], self._types[a]) if out is None else out
        self._add(_UNARY[kind](input_id=a, output_id=out, flags=0))
        return out

    def scaled(self, a: int, factor: float, out: int | None = None) -> int:
        """Multiply by a number."""
        return self.binary("multiply", a, self.operand(filled(1, factor), [1]), out)

    def clamp(self, a: int, low: float, high: float, out: int | None = None) -> int:
        """Clamp to `[low, high]`."""
        out = self._value(self._shapes[a]) if out is None else out
        limits = xnn.OutputMinMax(output_min=low, output_max=high)
        self._add(xnn.XNNClamp(input_id=a, output_id=out, flags=0), limits)
        return out

    def reshape(
        self, a: int, dims: Sequence[int], shape: Sequence[int], out: int | None = None
    ) -> int:
        """Reshape to `dims`, in which one 0 stands for "what is left"; `shape` is the bound."""
        out = self._value(shape, self._types[a]) if out is None else out
        self._add(
            xnn.XNNStaticReshape(
                num_dims=len(dims), new_shape=list(dims), input_id=a, output_id=out, flags=0
            )
        )
        return out

    def transpose(self, a: int, axes: Sequence[int], out: int | None = None) -> int:
        """Permute axes as numpy.transpose does."""
        if out is None:
            out = self._value([self._shapes[a][axis] for axis in axes], self._types[a])
        self._add(
            xnn.XNNStaticTranspose(
                num_dims=len(axes), perm=list(axes), input_id=a, output_id=out, flags=0
            )
        )
        return out

    def concatenate(self, values: Sequence[int], axis: int, out: int | None = None) -> int:
        """Join two to four values along an axis."""
        first = values[0]
        if out is None:
            shape = list(self._shapes[first])
            shape[axis] = sum(self._shapes[value][axis] for value in values)
            out = self._value(shape, self._types[first])
        inputs = [*values, *[_INVALID] * (5 - len(values))]
        names = {f"input{index}_id": value for index, value in enumerate(inputs, 1)}
        self._add(_CONCATENATE[len(values)](axis=axis, output_id=out, flags=0, **names))
        return out

    def matmul(self, a: int, b: int, out: int | None = None, *, transposed: bool = False) -> int:
        """Multiply `[..., m, k] @ [..., k, n]` batch by batch; `transposed`: b is `[..., n, k]`."""
        if out is None:
            batch = self._broadcast_shapes(self._shapes[a][:-2], self._shapes[b][:-2])
            columns = self._shapes[b][-2 if transposed else -1]
            out = self._value([*batch, self._shapes[a][-2], columns], self._types[a])
        flags = _TRANSPOSE_B if transposed else 0
        self._add(xnn.XNNBatchMatrixMultiply(input1_id=a, input2_id=b, output_id=out, flags=flags))
        return out

    def convert(self, a: int, element: Element, out: int | None = None) -> int:
        """Convert between element types; nothing is added if the type is right already."""
        if out is None:
            if self._types[a] is _ELEMENTS[element]:
                return a
            out = self._value(self._shapes[a], _ELEMENTS[element])
        self._add(xnn.XNNConvert(input_id=a, output_id=out, flags=0))
        return out

    def part(self, a: int, axis: int, start: int, size: int) -> int:
        """Take `size` elements from `start` on along an axis; no axis may be dynamic."""
        shape = list(self._shapes[a])
        offsets, sizes = [0] * len(shape), list(shape)
        offsets[axis], sizes[axis] = start, size
        out = self._value(sizes, self._types[a])
        self._add(
            xnn.XNNStaticSlice(
                num_dims=len(shape),
                offsets=offsets,
                sizes=sizes,
                input_id=a,
                output_id=out,
                flags=0,
            )
        )
        return out

    def linear(self, a: int, weights: int, bias: int | None = None, out: int | None = None) -> int:
        """Multiply `[..., k]` by weights `[n, k]` transposed, plus bias `[n]`."""
        out = self._value([*self._shapes[a][:-1], self._shapes[weights][0]]) if out is None else out
        self.linears.append(self._keys.get(weights, ""))
        self._add(
            xnn.XNNFullyConnected(
                input1_id=a,
                filter_id=weights,
                bias_id=_INVALID if bias is None else bias,
                output_id=out,
                flags=0,
            )
        )
        return out

    def depthwise(
        self, a: int, filters: int, bias: int | None, shape: Sequence[int], out: int | None = None
    ) -> int:
        """Convolve each channel of `[1, height, 1, channels]` with its filter, without padding.

        Args:
            a: The image.
            filters: From `packed`, `[1, taps, 1, channels]`.
            bias: From `packed`, `[channels]`.
            shape: Of the result, `[1, height - taps + 1, 1, channels]`.
            out: Where the result goes.
        """
        _, taps, _, channels = self._shapes[filters]
        out = self._value(shape) if out is None else out
        self._add(
            xnn.XNNDepthwiseConv2d(
                padding_top=0,
                padding_right=0,
                padding_bottom=0,
                padding_left=0,
                kernel_height=taps,
                kernel_width=1,
                subsampling_height=1,
                subsampling_width=1,
                dilation_height=1,
                dilation_width=1,
                group_input_channels=1,
                group_output_channels=1,
                groups=channels,
                adjustment_height=0,
                adjustment_width=0,
                input1_id=a,
                filter_id=filters,
                bias_id=_INVALID if bias is None else bias,
                output_id=out,
                flags=0,
            )
        )
        return out

    def dynamic_int8(self, a: int) -> int:
        """Quantise the last axis to int8, scale and zero point per row; once per value."""
        if a not in self._quantised:
            quantisation = xnn.PerTokenDynamicQuant(num_nonbatch_dims=1)
            datatype = xnn.XNNDatatype.xnn_datatype_qdint8
            out = self._value(self._shapes[a], datatype, quantisation)
            self._add(xnn.XNNConvert(input_id=a, output_id=out, flags=0))
            self._quantised[a] = out
        return self._quantised[a]

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
                if name.endswith("_id") and value != _INVALID:
                    uses.setdefault(value, []).append(position)
        for value, at in uses.items():
            if value not in external and not self._is_constant[value]:
                yield Lifetime(value, self._bytes(value), min(at), max(at))

    def _bytes(self, value: int) -> int:
        width = {_FP32: 4, _ELEMENTS["float16"]: 2}.get(self._types[value], 1)
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
        datatype: object = _FP32,
        quantisation: object = None,
        *,
        external: int = 0,
        constant: int = 0,
    ) -> int:
        identifier = len(self._values)
        external_id = _INVALID
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

    def _broadcast(self, a: int, b: int) -> list[int]:
        return self._broadcast_shapes(self._shapes[a], self._shapes[b])

    @staticmethod
    def _broadcast_shapes(a: Sequence[int], b: Sequence[int]) -> list[int]:
        rank = max(len(a), len(b))
        padded = ([1] * (rank - len(s)) + list(s) for s in (a, b))
        return [max(pair) for pair in zip(*padded, strict=True)]
