"""Compressed weights, some rows at a time, as they are multiplied.

Of a program that would be large in memory a block of rows is decompressed where it is multiplied,
in a buffer of fp32, by the arithmetic of the constexpr operators, and rounded to the same type.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mobilepack.mil.compressed import Compressed
from mobilepack.mil.program import Constant, Stored
from mobilepack.mil.tensors import ROUNDED, carried, stored_tensor
from mobilepack.mil.types import DType, TensorType

_BYTES = {DType.INT8: torch.int8, DType.UINT8: torch.uint8}


class Rows(Protocol):
    """A weight that is read by rows."""

    def read(self, start: int, wide: Tensor) -> None:
        """Fill `wide`, fp32 [rows, columns] and contiguous, with the rows from `start` on."""


def rows_of(source: Compressed) -> Rows | None:
    """Return a compressed weight by rows; None where its form has none that are cheap to read.

    Integers of 4 and 8 bits with scales, and places of 4 bits in tables of single values for
    groups of rows, have; sparse and joint forms, and iOS 16's tables, have not.
    """
    kind = source.operation.outputs[0].type
    if not isinstance(kind, TensorType) or len(kind.sizes) < 2:
        return None
    found = {name: source.constant(name) for name in source.arguments}
    given = {name: constant for name, constant in found.items() if constant is not None}
    if len(given) < len(found):
        return None  # made by another constexpr operator
    if source.operation.type == "constexpr_affine_dequantize":
        return _affine(kind, given)
    if source.operation.type == "constexpr_blockwise_shift_scale":
        return _scaled(kind, given)
    if source.operation.type == "constexpr_lut_to_dense" and "shape" not in given:
        return _palette(kind, given)
    return None


def _scaled(kind: TensorType, given: Mapping[str, Constant]) -> Rows | None:
    data, scale = given["data"], given["scale"]
    if not _readable(data, (*_BYTES, *_INTEGERS)):
        return None
    offset = _numbers(given["offset"]) if "offset" in given else None
    return _blocks(kind, data, _numbers(scale), offset)


def _affine(kind: TensorType, given: Mapping[str, Constant]) -> Rows | None:
    data, rank = given["quantized_data"], len(kind.sizes)
    if not _readable(data, _BYTES):
        return None
    axis = int(_numbers(given["axis"])) % rank
    sizes = [-1 if i == axis else 1 for i in range(rank)]
    scale, zero = (_numbers(given[name]).reshape(sizes) for name in ("scale", "zero_point"))
    return _blocks(kind, data, scale, zero)


def _blocks(kind: TensorType, data: Constant, scale: Tensor, offset: Tensor | None) -> Rows:
    split = [
        part
        for size, count in zip(kind.sizes[1:], scale.shape[1:], strict=True)
        for part in (count, size // count)
    ]
    around = [part for count in scale.shape[1:] for part in (count, 1)]
    return _Scaled(
        data.type,
        _packed(data),
        tuple(split),
        scale.reshape(-1, *around),
        None if offset is None else offset.reshape(-1, *around),
        ROUNDED.get(kind.dtype),
    )


def _palette(kind: TensorType, given: Mapping[str, Constant]) -> Rows | None:
    places, lut = given["indices"], given["lut"]
    if not _readable(places, (DType.UINT4,)):
        return None
    groups, *others = lut.type.sizes[: len(kind.sizes)]
    if any(count != 1 for count in (*others, lut.type.sizes[-1])):
        return None
    return _Palette(
        _packed(places), _pairs(_numbers(lut).reshape(groups, 16)), kind.sizes[0] // groups
    )


def _readable(data: Constant, kinds: Collection[DType]) -> bool:
    """Say whether a constant lies in a file, every row in whole bytes."""
    columns = data.type.elements // data.type.sizes[0]
    whole = columns * data.type.dtype.bits % 8 == 0
    return isinstance(data.data, Stored) and data.type.dtype in kinds and whole


def _packed(data: Constant) -> Tensor:
    """Return the stored bytes by rows, uint8 [rows, bytes]; a view of the file."""
    assert isinstance(data.data, Stored)  # noqa: S101 - see _readable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a view of a delegate in a .pte's bytes
        flat = torch.frombuffer(data.data.raw(data.type), dtype=torch.uint8)
    return flat.reshape(data.type.sizes[0], -1)


def _numbers(constant: Constant) -> Tensor:
    return carried(stored_tensor(constant), constant.type.dtype).float()


def _pairs(tables: Tensor) -> Tensor:
    """Return what each byte of two places stands for, as the bits of two fp32: int64 [n, 256]."""
    byte = torch.arange(256)
    both = torch.stack([tables[:, byte & 15], tables[:, byte >> 4]], -1)
    return both.contiguous().view(torch.int64).squeeze(-1)


_SIGNED = torch.tensor([*range(8), *range(-8, 0)], dtype=torch.float32)
_INTEGERS = {
    DType.INT4: _pairs(_SIGNED[None])[0],
    DType.UINT4: _pairs(torch.arange(16).float()[None])[0],
}


def _look_up(pairs: Tensor, packed: Tensor, wide: Tensor) -> None:
    """Fill `wide` with what packed bytes stand for."""
    index = packed.reshape(-1).to(torch.int32)
    torch.index_select(pairs, 0, index, out=wide.reshape(-1).view(torch.int64))


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Scale times (integer less offset), for blocks of every axis.

    Attributes:
        packed: Stored bytes, uint8 [rows, bytes].
        split: Every axis but the first as blocks and their length, of the data.
    """

    type: TensorType
    packed: Tensor
    split: tuple[int, ...]
    scale: Tensor
    offset: Tensor | None
    rounded: torch.dtype | None

    def read(self, start: int, wide: Tensor) -> None:
        """See `Rows.read`."""
        stored = self.packed[start : start + len(wide)]
        if self.type.dtype in _INTEGERS:
            _look_up(_INTEGERS[self.type.dtype], stored, wide)
        else:
            wide.copy_(stored.view(_BYTES[self.type.dtype]))
        values = wide.view(len(wide), *self.split)
        if self.offset is not None:
            values.sub_(self._of(self.offset, start, len(wide)))
        values.mul_(self._of(self.scale, start, len(wide)))
        if self.rounded is not None:
            wide.copy_(wide.to(self.rounded))

    def _of(self, numbers: Tensor, start: int, count: int) -> Tensor:
        """Return the numbers of some rows, an axis of one after each axis of blocks."""
        each = self.type.sizes[0] // len(numbers)  # rows that share one
        if each == 1:
            return numbers[start : start + count]
        return numbers[torch.arange(start, start + count) // each]


@dataclass(frozen=True, slots=True)
class _Palette:
    """Places in tables; as many rows share each, in order.

    Attributes:
        packed: Stored bytes, uint8 [rows, bytes].
        pairs: See `_pairs`.
    """

    packed: Tensor
    pairs: Tensor
    group: int

    def read(self, start: int, wide: Tensor) -> None:
        """See `Rows.read`."""
        stop = start + len(wide)
        for first in range(start - start % self.group, stop, self.group):
            low, high = max(first, start), min(first + self.group, stop)
            pairs = self.pairs[first // self.group]
            _look_up(pairs, self.packed[low:high], wide[low - start : high - start])
