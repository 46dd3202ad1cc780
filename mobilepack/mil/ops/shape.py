"""Operators that move elements without computing: shapes, slices, tiles, concatenation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.ops.registry import Bools, Ints, Tensors, operator


@operator("reshape", moves=True)
def reshape(x: Tensor, shape: Ints) -> Tensor:
    """Reshape; 0 keeps the size of the same axis, -1 is what is left."""
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


@operator("reshape", moves=True, since="CoreML7")
def reshape_from_the_right(x: Tensor, shape: Ints) -> Tensor:
    """Reshape; 0 keeps the size of the axis that is as far from the right (1 where none is)."""
    offset = x.dim() - len(shape)
    sizes = [
        (x.shape[i + offset] if i + offset >= 0 else 1) if size == 0 else size
        for i, size in enumerate(shape)
    ]
    return x.reshape(sizes)


@operator("reshape_like", moves=True)
def reshape_like(
    x: Tensor, ref_tensors: Tensors, begins: Tensors, ends: Tensors, end_masks: Tensors
) -> Tensor:
    """Reshape to pieces of other tensors' shapes, joined."""
    sizes: list[int] = []
    for ref, begin, end, whole in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += ref.shape[int(begin) : None if bool(whole) else int(end)]
    return x.reshape(sizes)


@operator("transpose", moves=True)
def transpose(x: Tensor, perm: Ints) -> Tensor:
    """Permute the axes."""
    return x.permute(perm)


@operator("expand_dims", moves=True)
def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """Insert axes of size 1; positions are counted in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("squeeze", moves=True)
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Remove axes of size 1."""
    return x.squeeze() if axes is None else x.squeeze(axes)


@operator("flatten2d", moves=True)
def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """Join the axes before `axis` and those from it on."""
    head = x.shape[: axis if axis >= 0 else x.dim() + axis]
    return x.reshape(head.numel(), -1)


@operator("shape")
def shape_of(x: Tensor) -> Tensor:
    """Return the shape, int32 [rank]."""
    return torch.tensor(x.shape, dtype=torch.int32)


@operator("concat", moves=True)
def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Join along an axis; interleaved, element i of each comes before element i + 1 of any."""
    if not interleave:
        return torch.cat([v.reshape(-1) if not v.dim() else v for v in values], axis)
    joined = torch.stack(values, axis % values[0].dim() + 1)
    return joined.flatten(axis % values[0].dim(), axis % values[0].dim() + 1)


@operator("stack", moves=True)
def stack(values: Tensors, axis: int) -> Tensor:
    """Join along a new axis."""
    return torch.stack(values, axis)


@operator("split", moves=True)
def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> Tensors:
    """Cut along an axis into pieces of the sizes given, or of equal size."""
    if split_sizes is not None:
        return tuple(torch.split(x, list(split_sizes), axis))
    return tuple(torch.split(x, x.shape[axis] // (num_splits or 1), axis))


@operator("tile", moves=True)
def tile(x: Tensor, reps: Ints) -> Tensor:
    """Repeat along each axis."""
    return x.repeat(reps)


@operator("reverse", moves=True)
def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Reverse the order along axes."""
    return x.flip(list(range(x.dim())) if axes is None else list(axes))


@operator("reverse_sequence", moves=True)
def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """Reverse the first lengths[i] elements of each batch entry i."""
    moved = x.movedim((batch_axis, seq_axis), (0, 1))
    steps = torch.arange(moved.shape[1]).expand(moved.shape[0], -1)
    ends = lengths.long()[:, None]
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    rows = torch.arange(moved.shape[0])[:, None]
    return moved[rows, index].movedim((0, 1), (batch_axis, seq_axis))


def _index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    masks: tuple[Bools | None, Bools | None, Bools | None],
) -> tuple[tuple[int | slice, ...], list[int]]:
    """Return an index with positive strides and the axes to reverse first.

    Negative begins and ends count from the end; a mask ignores the begin or end of its axis, the
    squeeze mask takes one element and drops the axis.
    """
    begin_mask, end_mask, squeeze_mask = masks
    found: list[int | slice] = []
    flipped: list[int] = []
    for axis, size in enumerate(x.shape):
        step = 1 if stride is None else stride[axis]
        if squeeze_mask is not None and squeeze_mask[axis]:
            found.append(begin[axis])
            continue
        first = None if begin_mask is not None and begin_mask[axis] else begin[axis]
        last = None if end_mask is not None and end_mask[axis] else end[axis]
        if step < 0:
            low, high, step = slice(first, last, step).indices(size)
            first, last, step = size - 1 - low, size - 1 - high, -step
            flipped.append(axis)
        found.append(slice(first, last, step))
    return tuple(found), flipped


@operator("slice_by_index", moves=True)
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """Take x[begin:end:stride] along every axis."""
    index, flipped = _index(x, begin, end, stride, (begin_mask, end_mask, squeeze_mask))
    return (x.flip(flipped) if flipped else x)[index]


@operator("slice_update", moves=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """Return a copy of x with x[begin:end:stride] replaced."""
    index, flipped = _index(x, begin, end, stride, (begin_mask, end_mask, squeeze_mask))
    result = x.flip(flipped) if flipped else x.clone()
    place = result[index]
    place.copy_(update.reshape(place.shape))
    return result.flip(flipped) if flipped else result


@operator("slice_by_size", moves=True)
def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """Take `size` elements from `begin` along every axis; -1 takes all that follow."""
    starts = [b + x.shape[i] if b < 0 else b for i, b in enumerate(begin)]
    return x[tuple(slice(b, None if n == -1 else b + n) for b, n in zip(starts, size, strict=True))]


@operator("crop", moves=True)
def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Cut rows and columns off the two ends of the last two axes."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@operator("pad", moves=True)
def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Extend the last len(pad) / 2 axes; pad holds (before, after) of each, in order of axes."""
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    if mode == "constant":
        flat = [size for pair in reversed(pairs) for size in pair]
        return functional.pad(x, flat, value=constant_val)
    first = x.dim() - len(pairs)
    for axis, (before, after) in enumerate(pairs, start=first):
        x = x.index_select(axis, _padded_index(x.shape[axis], before, after, mode))
    return x


def _padded_index(size: int, before: int, after: int, mode: str) -> Tensor:
    """Return which element of an axis stands at each place of the extended axis."""
    index = torch.arange(-before, size + after)
    if mode == "replicate":
        return index.clamp(0, size - 1)
    if size == 1:
        return torch.zeros_like(index)
    around = index.remainder(2 * (size - 1))  # reflect: without repeating the border
    return torch.minimum(around, 2 * (size - 1) - around)


@operator("fill")
def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    """Return a tensor of one value (0.0 where none is given)."""
    item = torch.zeros(()) if value is None else value.reshape(())
    return item.expand(shape).clone()


@operator("fill_like")
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """Return a tensor of one value in another's shape."""
    return fill(tuple(ref_tensor.shape), value)


@operator("range_1d")
def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """Count from start to end (exclusive)."""
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@operator("one_hot")
def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """Return vectors with `on_value` at each index and `off_value` elsewhere."""
    hot = torch.arange(one_hot_vector_size) == indices[..., None]
    on = torch.ones((), dtype=torch.int32) if on_value is None else on_value
    off = torch.zeros((), dtype=on.dtype) if off_value is None else off_value
    return torch.where(hot, on, off).movedim(-1, axis)


@operator("band_part", moves=True)
def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Set what lies outside a band of the last two axes to zero; negative keeps that side."""
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    outside = torch.zeros(x.shape[-2:], dtype=torch.bool)
    if lower >= 0:
        outside |= rows - columns > lower
    if upper >= 0:
        outside |= columns - rows > upper
    return x.masked_fill(outside, 0)


@operator("sliding_windows", moves=True)
def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """Cut windows along an axis: [..., windows, size, ...]."""
    return x.unfold(axis, size, stride).movedim(-1, axis % x.dim() + 1)
