"""Operators that treat each element by itself: arithmetic, comparison, logic, unary functions.

Two operands broadcast as in numpy. Functions whose parameters are optional have coremltools'
defaults (9.0, ops/defs/iOS15/elementwise_unary.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobilepack.mil.ops.registry import elementwise, operator

# `cast`'s names of element types → what the interpreter carries them in.
CAST = {
    "fp16": torch.float32,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "bool": torch.bool,
}


def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Divide; integers give the quotient that the declared type then truncates."""
    return torch.true_divide(x, y)


def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """Divide and round down."""
    return torch.div(x, y, rounding_mode="floor")


elementwise(
    {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "real_div": real_div,
        "floor_div": floor_div,
        "mod": torch.remainder,
        "pow": torch.pow,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "equal": torch.eq,
        "not_equal": torch.ne,
        "greater": torch.gt,
        "greater_equal": torch.ge,
        "less": torch.lt,
        "less_equal": torch.le,
        "logical_and": torch.logical_and,
        "logical_or": torch.logical_or,
        "logical_xor": torch.logical_xor,
    },
    ("x", "y"),
    "elementwise",
)
elementwise(
    {
        "abs": torch.abs,
        "acos": torch.acos,
        "asin": torch.asin,
        "atan": torch.atan,
        "atanh": torch.atanh,
        "ceil": torch.ceil,
        "cos": torch.cos,
        "cosh": torch.cosh,
        "erf": torch.erf,
        "exp": torch.exp,
        "exp2": torch.exp2,
        "floor": torch.floor,
        "logical_not": torch.logical_not,
        "round": torch.round,  # half to even, as numpy
        "sign": torch.sign,
        "sin": torch.sin,
        "sinh": torch.sinh,
        "sqrt": torch.sqrt,
        "square": torch.square,
        "tan": torch.tan,
        "tanh": torch.tanh,
    },
    ("x",),
    "elementwise",
)


@operator("identity", moves=True)
def identity(x: Tensor) -> Tensor:
    """Return the argument."""
    return x


@operator("clip")
def clip(x: Tensor, alpha: float = float("-inf"), beta: float = float("inf")) -> Tensor:
    """Limit to [alpha, beta]."""
    return torch.clamp(x, alpha, beta)


@operator("log")
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """Compute ln(x + epsilon)."""
    return torch.log(x + epsilon)


@operator("rsqrt")
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Compute 1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@operator("inverse")
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Compute 1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@operator("threshold")
def threshold(x: Tensor, alpha: float) -> Tensor:
    """Compute max(x, alpha)."""
    return torch.clamp(x, min=alpha)


@operator("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """Convert; a float becomes an integer by dropping its fraction."""
    return x.to(CAST[dtype])


@operator("select", moves=True)
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Take `a` where the condition holds, else `b`."""
    return torch.where(cond.bool(), a, b)
