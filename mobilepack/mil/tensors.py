"""Constants as torch tensors or plain Python values; what each declared type is carried in."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from mobilepack.errors import UsageError
from mobilepack.mil.ops.registry import Kind
from mobilepack.mil.program import Constant, Operation, Stored
from mobilepack.mil.types import DType

# What the interpreter computes with, by declared type.
CARRIERS = {
    DType.BOOL: torch.bool,
    DType.FLOAT16: torch.float32,
    DType.FLOAT32: torch.float32,
    DType.FLOAT64: torch.float64,
    DType.BFLOAT16: torch.float32,
    DType.FLOAT8E4M3FN: torch.float32,
    DType.FLOAT8E5M2: torch.float32,
    DType.INT4: torch.int8,
    DType.INT8: torch.int8,
    DType.INT16: torch.int16,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.UINT1: torch.uint8,
    DType.UINT2: torch.uint8,
    DType.UINT3: torch.uint8,
    DType.UINT4: torch.uint8,
    DType.UINT6: torch.uint8,
    DType.UINT8: torch.uint8,
    DType.UINT16: torch.int32,
    DType.UINT32: torch.int64,
    DType.UINT64: torch.int64,
}
# Types whose values torch has, but whose bits numpy sees as integers.
_BITS = {
    DType.BFLOAT16: torch.bfloat16,
    DType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    DType.FLOAT8E5M2: torch.float8_e5m2,
}
# Types that round when a value is stored, and what they round to.
ROUNDED = {DType.FLOAT16: torch.float16, **_BITS}


# What torch and Python raise where arguments do not fit an operator.
FAULTS = (RuntimeError, IndexError, ValueError, TypeError, KeyError, ArithmeticError)


def stored_tensor(constant: Constant) -> Tensor:
    """Return a constant in the type it is stored in; a view of the file where possible."""
    array = constant.array()
    dtype = constant.type.dtype
    if dtype in (DType.UINT16, DType.UINT32, DType.UINT64):
        return torch.from_numpy(array.astype("i8")).to(CARRIERS[dtype])
    if not array.flags.writeable and not isinstance(constant.data, Stored):
        array = array.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a view of a delegate in a .pte's bytes
        tensor = torch.from_numpy(array.reshape(-1)).reshape(array.shape)
    return tensor.view(_BITS[dtype]) if dtype in _BITS else tensor


def carried(tensor: Tensor, dtype: DType) -> Tensor:
    """Return a value in what its declared type is carried in."""
    carrier = CARRIERS[dtype]
    return tensor if tensor.dtype == carrier else tensor.to(carrier)


def unreadable(operation: Operation, why: str) -> UsageError:
    """Return the error of an operator that cannot be computed as it stands."""
    return UsageError(
        "invalid-operation",
        f"cannot compute {operation.type} {operation.name!r}",
        why=why,
        next="check the program with `mobilepack mil show`, or convert the model again",
    )


def static(constant: Constant, kind: Kind) -> object:
    """Return a constant as a kernel's plain Python argument."""
    if kind is Kind.TEXT:
        return constant.text
    items = stored_tensor(constant).reshape(-1).tolist()
    if kind is Kind.INTS:
        return tuple(int(item) for item in items)
    if kind is Kind.BOOLS:
        return tuple(bool(item) for item in items)
    convert = {Kind.INT: int, Kind.FLOAT: float, Kind.BOOL: bool}[kind]
    return convert(items[0])
