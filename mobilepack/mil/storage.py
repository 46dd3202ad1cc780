"""`weight.bin`: Core ML's file of constants, read in place.

Layout (coremltools 9.0, mlmodel/src/MILBlob/Blob/StorageFormat.hpp): a header of 64 bytes
(count: u32, version: u32 = 2, reserved), then blobs, each a 64-byte metadata record at the offset
that the program names (sentinel 0xDEADBEEF: u32, element type: u32, bytes: u64, offset of the data
in the file: u64, bits of padding at its end: u64), its data 64-byte aligned. Little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from mobilepack.errors import UsageError
from mobilepack.mil.files import damaged
from mobilepack.mil.types import DType, TensorType

SENTINEL = 0xDEADBEEF
HEADER_BYTES = 64
VERSION = 2
PIECE = 1 << 20  # elements unpacked at a time; whole bytes of every width
_METADATA = struct.Struct("<IIQQQ")

# BlobDataType of StorageFormat.hpp → element type.
BLOB_TYPES = {
    1: DType.FLOAT16,
    2: DType.FLOAT32,
    3: DType.UINT8,
    4: DType.INT8,
    5: DType.BFLOAT16,
    6: DType.INT16,
    7: DType.UINT16,
    8: DType.INT4,
    9: DType.UINT1,
    10: DType.UINT2,
    11: DType.UINT4,
    12: DType.UINT3,
    13: DType.UINT6,
    14: DType.INT32,
    15: DType.UINT32,
    16: DType.FLOAT8E4M3FN,
    17: DType.FLOAT8E5M2,
}
# Types that older writers store under another one of the same width.
_STORED_AS = {DType.BOOL: DType.UINT8}

# How numpy sees the stored elements; bf16 and fp8, which numpy lacks, as their bits.
NUMPY: dict[DType, np.dtype] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.FLOAT16: np.dtype("<f2"),
    DType.FLOAT32: np.dtype("<f4"),
    DType.FLOAT64: np.dtype("<f8"),
    DType.BFLOAT16: np.dtype("<i2"),
    DType.INT8: np.dtype("i1"),
    DType.INT16: np.dtype("<i2"),
    DType.INT32: np.dtype("<i4"),
    DType.INT64: np.dtype("<i8"),
    DType.UINT8: np.dtype("u1"),
    DType.UINT16: np.dtype("<u2"),
    DType.UINT32: np.dtype("<u4"),
    DType.UINT64: np.dtype("<u8"),
    DType.FLOAT8E4M3FN: np.dtype("u1"),
    DType.FLOAT8E5M2: np.dtype("u1"),
}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A mapped weight file."""

    name: str
    data: memoryview

    def blob(self, offset: int, kind: TensorType) -> memoryview:
        """Return the bytes of the blob whose metadata is at `offset`.

        Raises:
            UsageError: There is no such blob, it is of another type or size, or the file ends
                before it does.
        """
        where = f"the blob at offset {offset}"
        if offset < HEADER_BYTES or offset + 64 > len(self.data):
            raise damaged(
                self.name, f"{where} is not inside its {len(self.data)} bytes: it is truncated"
            )
        sentinel, number, size, start, _ = _METADATA.unpack_from(self.data, offset)
        if sentinel != SENTINEL:
            raise damaged(self.name, f"{where} begins with {sentinel:#x} instead of {SENTINEL:#x}")
        self._check(where, number, size, kind)
        if start + size > len(self.data):
            raise damaged(
                self.name,
                f"{where} ends at {start + size}, the file at {len(self.data)}: it is truncated",
            )
        return self.data[start : start + kind.stored_bytes]

    def _check(self, where: str, number: int, size: int, kind: TensorType) -> None:
        stored = BLOB_TYPES.get(number)
        if stored is not _STORED_AS.get(kind.dtype, kind.dtype):
            said = stored.label if stored else f"type {number}"
            raise damaged(self.name, f"{where} holds {said}, the program says {kind}")
        if size < kind.stored_bytes:
            raise damaged(self.name, f"{where} has {size} bytes, {kind} needs {kind.stored_bytes}")


def open_weight_file(name: str, data: memoryview) -> WeightFile:
    """Check a weight file's header.

    Raises:
        UsageError: It is not one, or of a version that is not known.
    """
    if len(data) < HEADER_BYTES:
        raise damaged(name, f"it has {len(data)} bytes, its header alone takes {HEADER_BYTES}")
    _, version = struct.unpack_from("<II", data, 0)
    if version != VERSION:
        raise UsageError(
            "invalid-package",
            f"cannot read {name}",
            why=f"it is a weight file of version {version}; version {VERSION} is known",
            next="check that the file is a Core ML weight.bin",
        )
    return WeightFile(name, data)


def unpack_bits(raw: bytes | memoryview, dtype: DType, count: int) -> np.ndarray:
    """Return `count` sub-byte integers, int8 or uint8 [count]; the first is in the lowest bits."""
    packed = np.frombuffer(raw, np.uint8)
    if dtype.bits in (1, 2, 4):  # no element crosses a byte
        shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
        values = ((packed[:, None] >> shifts) & ((1 << dtype.bits) - 1)).reshape(-1)[:count]
    else:
        values = np.empty(count, np.uint8)
        for start in range(0, count, PIECE):
            piece = packed[start * dtype.bits // 8 : (start + PIECE) * dtype.bits // 8]
            values[start : start + PIECE] = _crossing(piece, dtype.bits, min(PIECE, count - start))
    if not dtype.is_signed:
        return values
    half = 1 << (dtype.bits - 1)
    return ((values ^ half).astype(np.int8) - half).astype(np.int8)


def _crossing(packed: np.ndarray, width: int, count: int) -> np.ndarray:
    """Unpack elements that may cross bytes, uint8 [count]."""
    bits = np.unpackbits(packed, bitorder="little")[: count * width].reshape(count, width)
    values = np.zeros(count, np.uint8)
    for place in range(width):
        values |= bits[:, place] << place
    return values


def elements(raw: bytes | memoryview, kind: TensorType) -> np.ndarray:
    """Return stored bytes as an array of the tensor's shape; a view where elements fill bytes."""
    if kind.dtype.is_sub_byte:
        return unpack_bits(raw, kind.dtype, kind.elements).reshape(kind.sizes)
    return np.frombuffer(raw, NUMPY[kind.dtype], count=kind.elements).reshape(kind.sizes)
