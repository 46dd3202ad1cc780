"""Types of MIL values: element types as the file numbers them, tensors, states, lists."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class DType(enum.Enum):
    """Element types; the value is `(number in MIL.proto, name, bits)`.

    Numbers: coremltools 9.0, mlmodel/format/MIL.proto, enum DataType.
    """

    BOOL = (1, "bool", 8)
    STRING = (2, "string", 0)
    FLOAT16 = (10, "fp16", 16)
    FLOAT32 = (11, "fp32", 32)
    FLOAT64 = (12, "fp64", 64)
    BFLOAT16 = (13, "bf16", 16)
    INT8 = (21, "int8", 8)
    INT16 = (22, "int16", 16)
    INT32 = (23, "int32", 32)
    INT64 = (24, "int64", 64)
    INT4 = (25, "int4", 4)
    UINT8 = (31, "uint8", 8)
    UINT16 = (32, "uint16", 16)
    UINT32 = (33, "uint32", 32)
    UINT64 = (34, "uint64", 64)
    UINT4 = (35, "uint4", 4)
    UINT2 = (36, "uint2", 2)
    UINT1 = (37, "uint1", 1)
    UINT6 = (38, "uint6", 6)
    UINT3 = (39, "uint3", 3)
    FLOAT8E4M3FN = (40, "fp8e4m3fn", 8)
    FLOAT8E5M2 = (41, "fp8e5m2", 8)

    @property
    def number(self) -> int:
        """Return the number that the file uses."""
        return self.value[0]

    @property
    def label(self) -> str:
        """Return the name that MIL text uses."""
        return self.value[1]

    @property
    def bits(self) -> int:
        """Return the bits that one stored element takes; 0 for strings."""
        return self.value[2]

    @property
    def is_float(self) -> bool:
        """Say whether values are rounded when they are stored."""
        return self.label.startswith(("fp", "bf"))

    @property
    def is_sub_byte(self) -> bool:
        """Say whether several elements share a byte."""
        return 0 < self.bits < 8

    @property
    def is_signed(self) -> bool:
        """Say whether an integer type has negative values."""
        return self.label.startswith("int")


BY_NUMBER = {dtype.number: dtype for dtype in DType}
BY_LABEL = {dtype.label: dtype for dtype in DType}

Dim = int | None  # None: known only when the program runs


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor; a scalar has shape `()`.

    Attributes:
        shape: Sizes of the axes; None where the size is known at run time only; None instead of
            the tuple where not even the rank is.
    """

    dtype: DType
    shape: tuple[Dim, ...] | None

    @property
    def is_static(self) -> bool:
        """Say whether every size is known."""
        return self.shape is not None and all(size is not None for size in self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the shape of a static tensor."""
        return tuple(size for size in self.shape or () if size is not None)

    @property
    def elements(self) -> int:
        """Return the number of elements of a static tensor."""
        return math.prod(self.sizes)

    @property
    def stored_bytes(self) -> int:
        """Return the bytes that a static tensor takes in a weight file (sub-byte types packed)."""
        return (self.elements * self.dtype.bits + 7) // 8

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype.label}[...]"
        return f"{self.dtype.label}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class StateType:
    """A tensor that outlives one call; operators `read_state` and `coreml_update_state` see it."""

    wrapped: TensorType

    def __str__(self) -> str:
        return f"state<{self.wrapped}>"


@dataclass(frozen=True, slots=True)
class ListType:
    """A list of equal tensors, as recurrent networks build them in loops."""

    element: TensorType

    def __str__(self) -> str:
        return f"list<{self.element}>"


@dataclass(frozen=True, slots=True)
class OtherType:
    """A type that no tensor has (tuple, dictionary); the interpreter does not compute with it."""

    kind: str

    def __str__(self) -> str:
        return self.kind


MilType = TensorType | StateType | ListType | OtherType
