"""Operators on torch, one small function each; importing the groups fills the table."""

from mobilepack.mil.ops import (
    activation,
    constexpr,
    conv,
    elementwise,
    gather_scatter,
    linear,
    normalization,
    quantization,
    recurrent,
    reduction,
    resize,
    shape,
)
from mobilepack.mil.ops.registry import OPERATORS, Operator, find

GROUPS = (
    elementwise,
    activation,
    reduction,
    shape,
    gather_scatter,
    linear,
    conv,
    normalization,
    quantization,
    resize,
    recurrent,
    constexpr,
)

__all__ = ["GROUPS", "OPERATORS", "Operator", "find"]
