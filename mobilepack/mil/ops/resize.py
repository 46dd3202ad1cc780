"""Resizing along axes, sampled as Core ML's modes say (coremltools 9.0, `resize_bilinear`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mobilepack.mil.ops.registry import Ints, operator


def grid(size_in: int, size_out: int, mode: str) -> Tensor:
    """Return where each place of a resized axis samples the input, float32 [size_out]."""
    places = torch.arange(size_out, dtype=torch.float32)
    spans = max(size_out - 1, 1)
    if mode == "UNALIGN_CORNERS":
        step = size_in / size_out
        points = places * step + 0.5 * step - 0.5
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size_in - 1) / size_out
        points = 0.5 * delta + places * delta
    elif mode == "DEFAULT":
        points = places * ((size_in - size_in / size_out) / spans)
    elif mode == "ALIGN_CORNERS" and size_out == 1:
        points = torch.full((1,), (size_in - 1) / 2)
    else:
        points = places * ((size_in - 1) / spans)
    return points.clamp(0, size_in - 1)


def _interpolate(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Sample an axis at fractional places, linearly."""
    low = points.floor().long()
    high = torch.clamp(low + 1, max=x.shape[axis] - 1)
    shape = [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]
    part = (points - low).reshape(shape)
    return x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part


@operator("resize_bilinear")
def resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last two axes."""
    for axis, size in ((-2, target_size_height), (-1, target_size_width)):
        x = _interpolate(x, axis, grid(x.shape[axis], size, sampling_mode))
    return x


@operator("resize_nearest_neighbor", moves=True)
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Resize the last two axes; place i takes the element floor(i * in / out)."""
    for axis, size in ((-2, target_size_height), (-1, target_size_width)):
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


@operator("upsample_nearest_neighbor", moves=True)
def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0
) -> Tensor:
    """Enlarge the last two axes by repeating."""
    height = math.floor(x.shape[-2] * scale_factor_height)
    width = math.floor(x.shape[-1] * scale_factor_width)
    return resize_nearest_neighbor(x, height, width)


@operator("upsample_bilinear")
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Enlarge the last two axes; half-pixel centres unless corners are aligned."""
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    height = math.floor(x.shape[-2] * scale_factor_height)
    width = math.floor(x.shape[-1] * scale_factor_width)
    return resize_bilinear(x, height, width, mode)


@operator("resize")
def resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last `resized_dims` axes to the last sizes of `shape`; 0 keeps a size."""
    for axis in range(-resized_dims, 0):
        size = shape[axis] or x.shape[axis]
        points = grid(x.shape[axis], size, sampling_mode)
        if interpolation_mode == "NEAREST_NEIGHBOR":
            x = x.index_select(axis, (points + 0.5).floor().long().clamp(max=x.shape[axis] - 1))
        else:
            x = _interpolate(x, axis, points)
    return x
