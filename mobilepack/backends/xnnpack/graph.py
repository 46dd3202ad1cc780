"""Build one XNNPACK subgraph: its operators over `values.py`.

Shapes are upper bounds; XNNPACK derives the actual ones from the inputs of each call. A value is
known by its integer id. The classes of the serialised form come from ExecuTorch 1.5.1
(`backends/xnnpack/serialization`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mobilepack.backends.xnnpack.layout import filled
from mobilepack.backends.xnnpack.values import ELEMENTS, INVALID, Element, Values
from mobilepack.backends.xnnpack.vendor import xnn

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
_TRANSPOSE_B = 1  # XNN_FLAG_TRANSPOSE_B in xnnpack.h


class Graph(Values):
    """One delegate's subgraph under construction."""

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
        inputs = [*values, *[INVALID] * (5 - len(values))]
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
            if self._types[a] is ELEMENTS[element]:
                return a
            out = self._value(self._shapes[a], ELEMENTS[element])
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
                bias_id=INVALID if bias is None else bias,
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
                bias_id=INVALID if bias is None else bias,
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

    def _broadcast(self, a: int, b: int) -> list[int]:
        return self._broadcast_shapes(self._shapes[a], self._shapes[b])

    @staticmethod
    def _broadcast_shapes(a: Sequence[int], b: Sequence[int]) -> list[int]:
        rank = max(len(a), len(b))
        padded = ([1] * (rank - len(s)) + list(s) for s in (a, b))
        return [max(pair) for pair in zip(*padded, strict=True)]
