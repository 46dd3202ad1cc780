"""Reductions, sorting and counting along axes.

`axes` left out means every axis. Sums of fp16 are carried in fp32 and rounded once at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobilepack.mil.ops.registry import Ints, operator


def _axes(x: Tensor, axes: Ints | None) -> list[int]:
    return list(range(x.dim())) if axes is None else list(axes)


@operator("reduce_sum")
def reduce_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Add up."""
    return torch.sum(x, _axes(x, axes), keep_dims, dtype=x.dtype) if x.dim() else x


@operator("reduce_mean")
def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Average; of integers, the sum over the count as a float that the declared type truncates."""
    y = x if x.is_floating_point() else x.double()
    return torch.mean(y, _axes(x, axes), keep_dims) if x.dim() else y


@operator("reduce_max", moves=True)
def reduce_max(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Take the largest."""
    return torch.amax(x, _axes(x, axes), keep_dims)


@operator("reduce_min", moves=True)
def reduce_min(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Take the smallest."""
    return torch.amin(x, _axes(x, axes), keep_dims)


@operator("reduce_prod")
def reduce_prod(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Multiply."""
    for axis in sorted((a % max(x.dim(), 1) for a in _axes(x, axes)), reverse=True):
        x = torch.prod(x, axis, keep_dims, dtype=x.dtype)
    return x


@operator("reduce_l1_norm")
def reduce_l1_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Add up absolute values."""
    return reduce_sum(x.abs(), axes, keep_dims)


@operator("reduce_l2_norm")
def reduce_l2_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Take the square root of the sum of squares."""
    return torch.sqrt(reduce_sum(x * x, axes, keep_dims))


@operator("reduce_sum_square")
def reduce_sum_square(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Add up squares."""
    return reduce_sum(x * x, axes, keep_dims)


@operator("reduce_log_sum")
def reduce_log_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Take the logarithm of the sum."""
    return torch.log(reduce_sum(x, axes, keep_dims))


@operator("reduce_log_sum_exp")
def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Take the logarithm of the sum of exponentials, without overflow."""
    return torch.logsumexp(x, _axes(x, axes), keep_dims)


@operator("reduce_argmax")
def reduce_argmax(
    x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """Take the index of the first largest element."""
    del output_dtype  # the output's declared type says the same
    return torch.argmax(x, axis, keep_dims)


@operator("reduce_argmin")
def reduce_argmin(
    x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """Take the index of the first smallest element."""
    del output_dtype  # the output's declared type says the same
    return torch.argmin(x, axis, keep_dims)


@operator("argsort")
def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """Take the indices that sort; equal elements keep their order."""
    return torch.sort(x, dim=axis, descending=not ascending, stable=True).indices


@operator("topk")
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """Take the k largest (`ascending`: smallest) elements and where they are, in order.

    Without `sort` any order is right, so they are sorted as well.
    """
    del sort, output_indices_dtype
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    count = x.shape[axis] if k == -1 else k
    values, indices = values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
    return (values, indices) if return_indices else values


@operator("cumsum")
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Add up along an axis; `exclusive` leaves each element out of its own sum."""
    y = x.flip(axis) if reverse else x
    total = torch.cumsum(y, axis, dtype=x.dtype)
    if exclusive:
        total = torch.cat(
            [
                torch.zeros_like(total.narrow(axis, 0, 1)),
                total.narrow(axis, 0, x.shape[axis] - 1),
            ],
            axis,
        )
    return total.flip(axis) if reverse else total


@operator("non_zero")
def non_zero(x: Tensor) -> Tensor:
    """List the indices of elements that are not zero: int32 [count, rank]."""
    return torch.nonzero(x)
