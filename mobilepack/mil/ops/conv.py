"""Convolution, pooling and their padding; 1 to 3 spatial axes after [batch, channel]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.ops.registry import Ints, operator

_CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_MAX_POOL = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVG_POOL = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def _same_padding(sizes: Ints, kernels: Ints, strides: Ints, *, lower: bool) -> list[int]:
    """Return (before, after) of each axis so that the output has ceil(size / stride) places."""
    pads: list[int] = []
    for size, kernel, stride in zip(sizes, kernels, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        small, large = total // 2, total - total // 2
        pads += [large, small] if lower else [small, large]
    return pads


def _padding(x: Tensor, kernels: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> list[int]:
    """Return (before, after) of each spatial axis, in order."""
    if pad_type in ("same", "same_lower"):
        sizes = tuple(x.shape[2:])
        return _same_padding(sizes, kernels, strides, lower=pad_type == "same_lower")
    if pad_type == "custom" and pad is not None:
        return list(pad)
    return [0] * 2 * len(kernels)


def _flat(pads: list[int]) -> list[int]:
    """Return paddings as `functional.pad` takes them: the last axis first."""
    pairs = [pads[i : i + 2] for i in range(0, len(pads), 2)]
    return [size for pair in reversed(pairs) for size in pair]


def _ones(values: Ints | None, count: int) -> Ints:
    return (1,) * count if values is None else values


@operator("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve; weight: [C_out, C_in / groups, *kernel]."""
    axes = x.dim() - 2
    steps, spread = _ones(strides, axes), _ones(dilations, axes)
    reach = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], spread, strict=True))
    pads = _padding(x, reach, steps, pad_type, pad)
    if any(pads):
        x = functional.pad(x, _flat(pads))
    return _CONV[axes - 1](x, weight, bias, steps, 0, spread, groups)


@operator("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve backwards; weight: [C_in, C_out / groups, *kernel]; padding cuts the result."""
    axes = x.dim() - 2
    steps, spread = _ones(strides, axes), _ones(dilations, axes)
    whole = _TRANSPOSED[axes - 1](x, weight, bias, steps, 0, 0, groups, spread)
    wanted = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
    cut = list(pad) if pad_type == "custom" and pad is not None else [0] * 2 * axes
    if output_shape is not None:
        wanted = list(output_shape[2:])
        cut = _cut_to(list(whole.shape[2:]), wanted, cut)
    elif pad_type == "same":
        cut = _cut_to(list(whole.shape[2:]), wanted, cut)
    return functional.pad(whole, [-size for size in _flat(cut)]) if any(cut) else whole


def _cut_to(sizes: list[int], wanted: list[int], cut: list[int]) -> list[int]:
    """Return what to cut before and after each axis for the sizes wanted (negative: add zeros)."""
    result: list[int] = []
    for axis, (size, want) in enumerate(zip(sizes, wanted, strict=True)):
        before, extra = cut[2 * axis], size - want
        if not any(cut):
            before = max(extra, 0) // 2
        result += [before, extra - before]
    return result


def _pooling_pads(
    x: Tensor, kernels: Ints, strides: Ints, pads: list[int], ceil_mode: bool
) -> list[int]:
    """Extend the padding after each axis so that rounding up makes the last window whole."""
    if not ceil_mode:
        return pads
    result = list(pads)
    for axis, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
        size = x.shape[2 + axis] + pads[2 * axis] + pads[2 * axis + 1]
        windows = math.ceil((size - kernel) / stride) + 1
        if (windows - 1) * stride >= x.shape[2 + axis] + pads[2 * axis]:
            windows -= 1  # as torch: a window must begin inside the input or its first padding
        result[2 * axis + 1] += max((windows - 1) * stride + kernel - size, 0)
    return result


@operator("max_pool", moves=True)
def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Take the largest of each window; padding never wins."""
    steps = _ones(strides, len(kernel_sizes))
    pads = _padding(x, kernel_sizes, steps, pad_type, pad)
    pads = _pooling_pads(x, kernel_sizes, steps, pads, ceil_mode)
    padded = functional.pad(x, _flat(pads), value=-math.inf) if any(pads) else x
    return _MAX_POOL[x.dim() - 3](padded, kernel_sizes, steps)


@operator("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Average each window over its places, or (`exclude…`) over those inside the input.

    Places that only rounding up has added never count.
    """
    steps = _ones(strides, len(kernel_sizes))
    pads = _padding(x, kernel_sizes, steps, pad_type, pad)
    total = _window_sums(x, kernel_sizes, steps, pads, ceil_mode)
    ones = torch.ones_like(x[:1, :1])
    if exclude_padding_from_average:
        return total / _window_sums(ones, kernel_sizes, steps, pads, ceil_mode)
    padded = functional.pad(ones, _flat(pads), value=1.0)
    whole = _pooling_pads(x, kernel_sizes, steps, pads, ceil_mode)
    extra = [after - before for before, after in zip(pads, whole, strict=True)]
    return total / _window_sums(padded, kernel_sizes, steps, extra, ceil_mode=False)


@operator("l2_pool")
def l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Take the square root of the sum of squares of each window."""
    steps = _ones(strides, len(kernel_sizes))
    pads = _padding(x, kernel_sizes, steps, pad_type, pad)
    return torch.sqrt(_window_sums(x * x, kernel_sizes, steps, pads, ceil_mode))


def _window_sums(
    x: Tensor, kernels: Ints, strides: Ints, pads: list[int], ceil_mode: bool
) -> Tensor:
    """Return each window's sum."""
    whole = functional.pad(x, _flat(_pooling_pads(x, kernels, strides, pads, ceil_mode)))
    return _AVG_POOL[x.dim() - 3](whole, kernels, strides) * math.prod(kernels)


@operator("pixel_shuffle", moves=True)
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Move channels into space: [n, C·f², H, W] → [n, C, H·f, W·f]."""
    return functional.pixel_shuffle(x, upscale_factor)


@operator("pixel_unshuffle", moves=True)
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """Move space into channels: [n, C, H·f, W·f] → [n, C·f², H, W]."""
    return functional.pixel_unshuffle(x, downscale_factor)


@operator("depth_to_space", moves=True)
def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Move channels into space, the blocks' offsets before the channels."""
    n, c, h, w = x.shape
    b = block_size
    blocks = x.reshape(n, b, b, c // (b * b), h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


@operator("space_to_depth", moves=True)
def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """Move space into channels, the blocks' offsets before the channels."""
    n, c, h, w = x.shape
    b = block_size
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


@operator("space_to_batch", moves=True)
def space_to_batch(x: Tensor, block_shape: Tensor, paddings: Tensor) -> Tensor:
    """Pad the last two axes, cut them into blocks, and move each block's places to the batch."""
    (bh, bw), pads = block_shape.tolist(), paddings.reshape(-1).tolist()
    x = functional.pad(x, _flat(pads))
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // bh, bh, w // bw, bw)
    return blocks.permute(3, 5, 0, 1, 2, 4).reshape(n * bh * bw, c, h // bh, w // bw)


@operator("batch_to_space", moves=True)
def batch_to_space(x: Tensor, block_shape: Tensor, crops: Tensor) -> Tensor:
    """Undo `space_to_batch` and cut the borders off."""
    (bh, bw), (top, bottom, left, right) = block_shape.tolist(), crops.reshape(-1).tolist()
    n, c, h, w = x.shape
    blocks = x.reshape(bh, bw, n // (bh * bw), c, h, w)
    joined = blocks.permute(2, 3, 4, 0, 5, 1).reshape(n // (bh * bw), c, h * bh, w * bw)
    return joined[..., top : h * bh - bottom, left : w * bw - right]
