"""Compressed constants: affine, look-up tables, sparse, and their combinations.

They are decompressed once, when the program is loaded. Results are of the declared type: products
of fp16 scales are rounded to fp16 even with rounding off, because on the device they are stored so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mobilepack.mil.ops.registry import Ints, operator
from mobilepack.mil.storage import unpack_bits
from mobilepack.mil.types import BY_LABEL

PIECE = 1 << 22  # elements decompressed at a time


@operator("constexpr_affine_dequantize")
def affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    """Compute scale * (data - zero_point), both scalars or vectors along an axis."""
    shape = [-1 if i == axis % quantized_data.dim() else 1 for i in range(quantized_data.dim())]
    zero = zero_point.reshape(shape) if zero_point.dim() else zero_point
    factor = (scale.reshape(shape) if scale.dim() else scale).float()
    return ((quantized_data.float() - zero.float()) * factor).to(scale.dtype)


@operator("constexpr_cast")
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """Convert a constant."""
    del output_dtype  # the output's declared type says the same
    return source_val


def _packed(data: Tensor, count: int, bits: int) -> Tensor:
    """Unpack `count` unsigned integers of some bits from bytes, uint8 [count]."""
    if bits == 8:
        return data.reshape(-1)[:count]
    values = unpack_bits(data.contiguous().numpy().tobytes(), BY_LABEL[f"uint{bits}"], count)
    return torch.from_numpy(values)


@operator("constexpr_lut_to_dense", moves=True)
def lut_to_dense_packed(indices: Tensor, lut: Tensor, shape: Tensor) -> Tensor:
    """Look up packed indices in one table of 2, 4, 16, 64 or 256 entries (iOS 16)."""
    sizes = shape.tolist()
    count = int(torch.tensor(sizes).prod())
    bits = lut.numel().bit_length() - 1
    return lut[_packed(indices, count, bits).long()].reshape(sizes)


@operator("constexpr_lut_to_dense", moves=True, since="CoreML8")
def lut_to_dense(indices: Tensor, lut: Tensor, vector_axis: int | None = None) -> Tensor:
    """Look up indices in the table of their block (iOS 18).

    Args:
        indices: Unsigned integers, K axes.
        lut: [*blocks (K axes), entries, vector length]; blocks divides the shape of the indices.
        vector_axis: Along which axis the elements of a vector follow one another.
    """
    length = lut.shape[-1]
    found = torch.empty((*indices.shape, length), dtype=lut.dtype)
    for rows, blocks in _pieces(indices.shape, lut.shape[0]):
        found[rows] = _look_up(indices[rows], lut[blocks])
    if length == 1 or vector_axis is None:
        return found.squeeze(-1)
    axis = vector_axis % indices.dim()
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _look_up(indices: Tensor, lut: Tensor) -> Tensor:
    """Return the vectors that indices stand for, [*indices, vector length]."""
    blocks, (entries, length) = lut.shape[:-2], lut.shape[-2:]
    table = torch.arange(blocks.numel(), dtype=torch.int32).reshape(blocks)
    row = _spread(table, indices.shape) * entries + indices
    found = lut.reshape(-1, length).index_select(0, row.reshape(-1))
    return found.reshape(*indices.shape, length)


def _spread(values: Tensor, shape: torch.Size) -> Tensor:
    """Repeat each element over its block of a larger shape."""
    for axis, (have, want) in enumerate(zip(values.shape, shape, strict=True)):
        if have != want:
            values = values.repeat_interleave(want // have, axis)
    return values


def _pieces(shape: torch.Size, blocks: int) -> Iterator[tuple[slice, slice]]:
    """Yield ranges of the first axis and of the blocks along it, so that a piece stays small."""
    step = shape[0] // blocks  # rows that share a block
    row = max(math.prod(shape[1:]), 1)
    if blocks == 1:
        rows = max(PIECE // row, 1)
        for start in range(0, shape[0], rows):
            yield slice(start, start + rows), slice(0, 1)
        return
    count = max(PIECE // (row * step), 1)
    for start in range(0, blocks, count):
        yield slice(start * step, (start + count) * step), slice(start, start + count)


@operator("constexpr_blockwise_shift_scale")
def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """Compute scale * (data - offset), each scale and offset for a block of every axis."""
    if not data.dim():
        return _shift_scale(data, scale, offset)
    result = torch.empty(data.shape, dtype=scale.dtype)
    for rows, blocks in _pieces(data.shape, scale.shape[0]):
        shift = None if offset is None else offset[blocks]
        result[rows] = _shift_scale(data[rows], scale[blocks], shift)
    return result


def _shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    # Blocks as axes of their own: nothing is repeated.
    split = [part for n, s in zip(data.shape, scale.shape, strict=True) for part in (s, n // s)]
    around = [part for s in scale.shape for part in (s, 1)]
    values = data.reshape(split).float()
    if offset is not None:
        values = values - offset.reshape(around).float()
    return (values * scale.reshape(around).float()).reshape(data.shape)


@operator("constexpr_sparse_to_dense", moves=True)
def sparse_to_dense_packed(nonzero_data: Tensor, mask: Tensor, shape: Ints) -> Tensor:
    """Put values where a packed bit mask has ones, zero elsewhere (iOS 16)."""
    count = int(torch.tensor(shape).prod())
    return sparse_to_dense(nonzero_data, _packed(mask, count, 1).reshape(shape))


@operator("constexpr_sparse_to_dense", moves=True, since="CoreML8")
def sparse_to_dense(nonzero_data: Tensor, mask: Tensor) -> Tensor:
    """Put values where a mask has ones, zero elsewhere (iOS 18)."""
    result = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    return result.masked_scatter(mask.bool(), nonzero_data)


@operator("constexpr_lut_to_sparse", moves=True)
def lut_to_sparse(
    indices_mask: Tensor,
    indices_nonzero_data: Tensor,
    lut: Tensor,
    vector_axis: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Look up the indices that a mask keeps; return the mask and the values that it keeps."""
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask.bool()]


@operator("constexpr_sparse_blockwise_shift_scale")
def sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Dequantise the values that a mask keeps; return the mask and the values."""
    dense = blockwise_shift_scale(sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]
