"""Values of a MIL function under construction, and the operators that a decoder needs.

Each operator infers its result's type, as MIL declares it. All floating values are fp16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mobilepack.mil.types import DType, TensorType
from mobilepack.mil.writer import Blob, FunctionWriter, Literal, Reference

Sizes = tuple[int, ...]


def half(*sizes: int) -> TensorType:
    """Return the type of an fp16 tensor."""
    return TensorType(DType.FLOAT16, sizes)


@dataclass(frozen=True, slots=True)
class Value(Reference):
    """A value: its name, its type, and the function that computes it."""

    type: TensorType
    graph: Graph

    @property
    def shape(self) -> Sizes:
        """Sizes of its axes."""
        return self.type.sizes

    def __add__(self, other: Value) -> Value:
        return self.graph.binary("add", self, other)

    def __mul__(self, other: Value | float) -> Value:
        return self.graph.binary("mul", self, other)

    def clamp(self, least: float, most: float) -> Value:
        """Clip to a range."""
        return self.graph.same("clip", self, alpha=np.float16(least), beta=np.float16(most))


class Graph:
    """A function under construction; the next results are named after `scope`."""

    def __init__(self, function: FunctionWriter) -> None:
        self.function = function
        self.scope = ""

    def input(self, name: str, kind: TensorType) -> Value:
        """Add an input."""
        return Value(self.function.input(name, kind), kind, self)

    def state(self, name: str, kind: TensorType) -> Value:
        """Add a state and read it."""
        state = self.function.state(name, kind)
        return self.one("read_state", kind, f"{name}_read", input=Reference(state))

    def write(self, name: str, value: Value) -> Value:
        """Write a state and read it back."""
        to = Reference(name)
        self.function.operation("write_state", f"{name}_write", (), {"input": to, "data": value})
        return self.one("read_state", value.type, f"{name}_new", input=to)

    def output(self, value: Value) -> None:
        """Return a value."""
        self.function.output(value.name, value.type)

    def one(self, kind: str, result: TensorType, name: str = "", /, **arguments: object) -> Value:
        """Add an operator with one result."""
        called = name or self.called(kind)
        (made,) = self.function.operation(kind, called, (result,), arguments)
        return Value(made, result, self)

    def same(self, kind: str, x: Value, name: str = "", /, **arguments: object) -> Value:
        """Add an operator whose result has the type of `x`."""
        return self.one(kind, x.type, name, x=x, **arguments)

    def constexpr(
        self,
        kind: str,
        name: str,
        result: TensorType,
        arguments: Mapping[str, Blob],
        attributes: Mapping[str, Blob | np.ndarray | int],
    ) -> Value:
        """Add a compressed constant."""
        (made,) = self.function.operation(kind, name, (result,), arguments, attributes)
        return Value(made, result, self)

    def constant(self, name: str, value: Blob | Literal) -> Value:
        """Return a constant."""
        kind = value.type if isinstance(value, Blob) else half(*np.shape(value))
        return Value(self.function.constant(name, value), kind, self)

    def binary(self, kind: str, x: Value, y: Value | float) -> Value:
        """Combine two values that broadcast, or a value and a number."""
        if not isinstance(y, Value):
            number = np.float16(y) if x.type.dtype is DType.FLOAT16 else np.int32(y)
            return self.same(kind, x, y=number)
        sizes = np.broadcast_shapes(x.shape, y.shape)
        return self.one(kind, TensorType(x.type.dtype, sizes), x=x, y=y)

    def reshape(self, x: Value, sizes: Sizes, name: str = "") -> Value:
        """Give the elements other axes; with a name there is an operator in any case."""
        if x.shape == sizes and not name:
            return x
        return self.one("reshape", TensorType(x.type.dtype, sizes), name, x=x, shape=_ints(sizes))

    def transpose(self, x: Value, order: Sizes, name: str = "") -> Value:
        """Exchange axes; a reshape where only axes of one element move."""
        sizes = tuple(x.shape[axis] for axis in order)
        moved = [axis for axis in order if x.shape[axis] > 1]
        if moved == sorted(moved):
            return self.reshape(x, sizes, name)
        return self.one("transpose", TensorType(x.type.dtype, sizes), name, x=x, perm=_ints(order))

    def slice(self, x: Value, axis: int, begin: int, end: int, stride: int = 1) -> Value:
        """Return a part of one axis."""
        rank, size = len(x.shape), len(range(begin, end, stride))
        if size == x.shape[axis]:
            return x
        sizes = tuple(size if i == axis else s for i, s in enumerate(x.shape))
        starts = [begin if i == axis else 0 for i in range(rank)]
        ends = [end if i == axis else s for i, s in enumerate(x.shape)]
        steps = [stride if i == axis else 1 for i in range(rank)]
        more = {} if stride == 1 else {"stride": _ints(steps)}
        kind = TensorType(x.type.dtype, sizes)
        return self.one("slice_by_index", kind, x=x, begin=_ints(starts), end=_ints(ends), **more)

    def split(self, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
        """Cut one axis into parts."""
        if len(sizes) == 1:
            return [x]
        kinds = [
            TensorType(x.type.dtype, tuple(n if i == axis else s for i, s in enumerate(x.shape)))
            for n in sizes
        ]
        arguments = {"x": x, "split_sizes": _ints(sizes), "axis": np.int32(axis)}
        names = self.function.operation("split", self.called("split"), kinds, arguments)
        return [Value(name, kind, self) for name, kind in zip(names, kinds, strict=True)]

    def concat(self, values: Sequence[Value], axis: int, name: str = "") -> Value:
        """Put values one after the other along an axis."""
        if len(values) == 1:
            return values[0]
        first = values[0].shape
        total = sum(value.shape[axis] for value in values)
        sizes = tuple(total if i == axis else s for i, s in enumerate(first))
        kind = TensorType(values[0].type.dtype, sizes)
        arguments = {"values": list(values), "axis": np.int32(axis), "interleave": np.bool_(False)}
        return self.one("concat", kind, name, **arguments)

    def matmul(
        self, x: Value, y: Value, transpose_x: bool = False, transpose_y: bool = False
    ) -> Value:
        """Multiply matrices of the last two axes; the axes before broadcast."""
        rows = x.shape[-1] if transpose_x else x.shape[-2]
        columns = y.shape[-2] if transpose_y else y.shape[-1]
        before = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        flags = {"transpose_x": np.bool_(transpose_x), "transpose_y": np.bool_(transpose_y)}
        return self.one("matmul", half(*before, rows, columns), x=x, y=y, **flags)

    def conv(self, x: Value, weight: Value, bias: Value | None) -> Value:
        """Map the channels of `[1, inputs, 1, T]` with `[outputs, inputs, 1, 1]`."""
        sizes = (1, weight.shape[0], 1, x.shape[3])
        more = {} if bias is None else {"bias": bias}
        return self.one(
            "conv",
            half(*sizes),
            x=x,
            weight=weight,
            strides=_ints((1, 1)),
            pad_type="valid",
            pad=_ints((0, 0, 0, 0)),
            dilations=_ints((1, 1)),
            groups=np.int32(1),
            **more,
        )

    def gather(self, x: Value, indices: Value, axis: int) -> Value:
        """Look up along one axis; indices are in range."""
        sizes = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        return self.one(
            "gather",
            TensorType(x.type.dtype, sizes),
            x=x,
            indices=indices,
            axis=np.int32(axis),
            batch_dims=np.int32(0),
            validate_indices=np.bool_(False),
        )

    def reduce(self, kind: str, x: Value, axis: int) -> Value:
        """Reduce one axis to one element."""
        sizes = tuple(1 if i == axis else s for i, s in enumerate(x.shape))
        return self.one(kind, half(*sizes), x=x, axes=_ints((axis,)), keep_dims=np.bool_(True))

    def cast_half(self, x: Value) -> Value:
        """Convert elements to half precision."""
        return self.one("cast", half(*x.shape), x=x, dtype=DType.FLOAT16.label)

    def compare(self, kind: str, x: Value, y: int) -> Value:
        """Compare integers with a number."""
        return self.one(kind, TensorType(DType.BOOL, x.shape), x=x, y=np.int32(y))

    def softmax(self, x: Value) -> Value:
        """Softmax over the last axis."""
        return self.same("softmax", x, axis=np.int32(-1))

    def called(self, kind: str) -> str:
        """Return the name of a result in this scope."""
        return f"{self.scope}_{kind}" if self.scope else kind


def _ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int32)
