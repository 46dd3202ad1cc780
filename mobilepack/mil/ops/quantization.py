"""Affine quantisation at run time (constants: constexpr.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from mobilepack.mil.ops.registry import operator


@operator("quantize")
def quantize(
    input_: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """Compute clip(round(input / scale) + zero_point), int8 or uint8."""
    low, high = (0, 255) if output_dtype == "uint8" else (-128, 127)
    whole = torch.round(input_ / _along(scale, input_, axis))
    if zero_point is not None:
        whole = whole + _along(zero_point, input_, axis)
    kind = torch.uint8 if output_dtype == "uint8" else torch.int8
    return whole.clamp(low, high).to(kind)


@operator("dequantize")
def dequantize(
    input_: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """Compute (input - zero_point) * scale."""
    value = input_.float()
    if zero_point is not None:
        value = value - _along(zero_point, input_, axis).float()
    return value * _along(scale, input_, axis)


def _along(vector: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Shape a vector so that it lies along one axis of x; a scalar stays one."""
    if not vector.dim() or axis is None:
        return vector
    return vector.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])
