"""Operators that read or write where other tensors say.

Up to iOS 16 a negative index counts from the end; from iOS 17 on it is out of range (coremltools
9.0, ops/defs/iOS17/scatter_gather.py), where Core ML's result is undefined: here it is an error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mobilepack.mil.ops.registry import operator

# Scatter modes by the reduction that torch calls them.
_REDUCE = {"mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(indices: Tensor, size: int) -> Tensor:
    """Return indices that count from the front, int64."""
    index = indices.long()
    return torch.where(index < 0, index + size, index)


def _gather(x: Tensor, index: Tensor, axis: int, batch_dims: int) -> Tensor:
    axis %= x.dim()
    if batch_dims:
        rows = x.shape[:batch_dims].numel()
        inner = x.reshape(rows, *x.shape[batch_dims:])
        at = index.reshape(rows, *index.shape[batch_dims:])
        picked = [_gather(inner[i], at[i], axis - batch_dims, 0) for i in range(rows)]
        return torch.stack(picked).reshape(*x.shape[:batch_dims], *picked[0].shape)
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return torch.index_select(x, axis, index.reshape(-1)).reshape(shape)


@operator("gather", moves=True)
def gather_wrapping(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0) -> Tensor:
    """Take slices along an axis."""
    return _gather(x, _wrapped(indices, x.shape[axis]), axis, batch_dims)


@operator("gather", moves=True, since="CoreML7")
def gather(
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    """Take slices along an axis."""
    del validate_indices  # an index out of range is an error either way
    return _gather(x, indices.long(), axis, batch_dims)


@operator("gather_along_axis", moves=True)
def gather_along_axis_wrapping(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Take one element along an axis for each index."""
    return torch.take_along_dim(x, _wrapped(indices, x.shape[axis]), axis)


@operator("gather_along_axis", moves=True, since="CoreML7")
def gather_along_axis(
    x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take one element along an axis for each index."""
    del validate_indices
    return torch.take_along_dim(x, indices.long(), axis)


@operator("gather_nd", moves=True)
def gather_nd(
    x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take the slices whose leading indices stand along the last axis of `indices`."""
    del validate_indices
    if batch_dims:
        rows = x.shape[:batch_dims].numel()
        inner = x.reshape(rows, *x.shape[batch_dims:])
        at = indices.reshape(rows, *indices.shape[batch_dims:])
        picked = torch.stack([gather_nd(inner[i], at[i]) for i in range(rows)])
        return picked.reshape(*x.shape[:batch_dims], *picked.shape[1:])
    return x[tuple(indices.long().unbind(-1))]


def _combine(old: Tensor, new: Tensor, mode: str) -> Tensor:
    """Return what a place holds after an update; `update` replaces it."""
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
        "max": torch.maximum,
        "min": torch.minimum,
    }
    return new if mode == "update" else ways[mode](old, new).to(old.dtype)


@operator("scatter_along_axis")
def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Update one element along an axis for each index."""
    del validate_indices
    index = _wrapped(indices, data.shape[axis])
    if mode == "update":
        return data.scatter(axis, index, updates)
    if mode in ("sub", "add"):
        return data.scatter_add(axis, index, -updates if mode == "sub" else updates)
    if mode == "div":
        return data.scatter_reduce(axis, index, 1.0 / updates, "prod")
    return data.scatter_reduce(axis, index, updates, _REDUCE[mode])


@operator("scatter")
def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Update whole slices along an axis, one index after the other."""
    del validate_indices
    result = data.movedim(axis, 0).clone()
    index = _wrapped(indices, result.shape[0]).reshape(-1)
    rows = updates.movedim(axis, 0) if indices.dim() == 1 else updates
    for place, row in zip(index.tolist(), rows, strict=True):
        result[place] = _combine(result[place], row, mode)
    return result.movedim(0, axis)


@operator("scatter_nd")
def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Update the slices whose leading indices stand along the last axis, one after the other."""
    del validate_indices
    result = data.clone()
    depth = indices.shape[-1]
    places = indices.reshape(-1, depth).tolist()
    rows = updates.reshape(len(places), *data.shape[depth:])
    for place, row in zip(places, rows, strict=True):
        at = tuple(place)
        result[at] = _combine(result[at], row, mode)
    return result
