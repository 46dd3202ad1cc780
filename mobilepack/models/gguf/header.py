"""The header of a GGUF file, validated completely before any of it is believed.

Layout (ggml docs/gguf.md, versions 2 and 3, little-endian): magic, version, number of tensors,
number of metadata entries, the entries (key, type, value), the tensors' descriptions (name, sizes
from the fastest axis on, type, offset), padding, and the tensors' bytes, each aligned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mobilepack.errors import UsageError
from mobilepack.models.config import Json
from mobilepack.models.gguf.cursor import Cursor
from mobilepack.models.gguf.types import TYPES, BlockType
from mobilepack.models.weight_file import TensorInfo, truncated

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256_000_000
"""A vocabulary of 262k tokens with its merges takes 15 MB."""
MAX_NAME_BYTES = 1024
MAX_AXES = 4  # ggml.h: GGML_MAX_DIMS
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20

# ggml docs/gguf.md: gguf_metadata_value_type
_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f")))
_SCALARS |= {10: "Q", 11: "q", 12: "d"}
_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself.

    Attributes:
        metadata: Values by key; arrays are lists.
        tensors: Every tensor; its shape is `[rows, ..., columns]`, the fastest axis last.
        raw: The header's bytes, from which everything here was read.
    """

    metadata: Mapping[str, Json]
    tensors: Mapping[str, TensorInfo]
    raw: bytes


def malformed(path: Path, why: str) -> UsageError:
    """Return the error for a file that breaks the GGUF format."""
    return UsageError(
        "invalid-gguf",
        f"{path} is not a valid GGUF file",
        why=why,
        next="download or copy the file again, or convert the model again with current llama.cpp",
    )


def read_header(path: Path, descriptor: int, size: int) -> Header:
    """Return the header of an open file of so many bytes.

    Raises:
        UsageError: The file is truncated, breaks the format, or holds a tensor of a type that
            cannot be read.
    """
    cursor = Cursor(path, descriptor, size, MAX_HEADER_BYTES)
    try:
        tensor_count, entry_count = _preamble(cursor)
        metadata = _metadata(cursor, entry_count)
        tensors, end = _tensors(cursor, tensor_count, _alignment(metadata))
    except ValueError as err:
        raise malformed(path, str(err)) from err
    if end > size:
        raise truncated(path, f"it has {size} bytes; its header promises {end}")
    return Header(MappingProxyType(metadata), MappingProxyType(tensors), cursor.consumed())


def _preamble(cursor: Cursor) -> tuple[int, int]:
    magic = cursor.take(4)
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}, not {MAGIC!r}")
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(int(version).to_bytes(4, "big"), "little")
        if swapped in VERSIONS:
            raise ValueError("it is big-endian; only little-endian files can be read")
        raise ValueError(f"it is of version {version}; versions 2 and 3 can be read")
    tensors, entries = int(cursor.number("Q")), int(cursor.number("Q"))
    # Each takes at least 24 and 13 bytes, so larger counts are lies.
    if tensors > cursor.left() // 24 or entries > cursor.left() // 13:
        raise ValueError(f"it claims {tensors} tensors and {entries} entries, more than it holds")
    return tensors, entries


def _metadata(cursor: Cursor, count: int) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for _ in range(count):
        key = cursor.text(MAX_NAME_BYTES)
        if key in found:
            raise ValueError(f"the metadata key {key!r} appears twice")
        kind = int(cursor.number("I"))
        found[key] = _array(cursor, key) if kind == _ARRAY else _value(cursor, key, kind)
    return found


def _value(cursor: Cursor, key: str, kind: int) -> Json:
    if kind == _STRING:
        return cursor.text()
    if kind == _BOOL:
        flag = cursor.number("B")
        if flag not in (0, 1):
            raise ValueError(f"{key!r} is the boolean {flag}")
        return bool(flag)
    if kind not in _SCALARS:
        raise ValueError(f"{key!r} has the unknown type {kind}")
    value = cursor.number(_SCALARS[kind])
    return _decimal(value) if kind == _FLOAT32 else value


def _array(cursor: Cursor, key: str) -> list[Json]:
    kind, count = int(cursor.number("I")), int(cursor.number("Q"))
    if kind == _STRING:
        return list(cursor.texts(count))
    if kind == _BOOL:
        return [bool(value) for value in cursor.numbers("B", count)]
    if kind not in _SCALARS:
        raise ValueError(f"{key!r} is an array of the type {kind}, which is unknown here")
    return list(cursor.numbers(_SCALARS[kind], count))


def _decimal(value: float) -> float:
    """Return the shortest decimal number that is stored as this float32: 1e-5, not 9.99…e-6."""
    if not math.isfinite(value):
        return value
    digits = (float(f"{value:.{count}g}") for count in range(1, 10))
    return next(
        (short for short in digits if struct.unpack("<f", struct.pack("<f", short))[0] == value),
        value,
    )


def _alignment(metadata: Mapping[str, Json]) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    power = isinstance(value, int) and value > 0 and value & (value - 1) == 0
    if not isinstance(value, int) or not power or value > _MAX_ALIGNMENT:
        raise ValueError(f"general.alignment is {value!r}, not a power of two up to 2^20")
    return value


def _tensors(cursor: Cursor, count: int, alignment: int) -> tuple[dict[str, TensorInfo], int]:
    """Return the tensors with their places in the file, and where the last one ends."""
    found: dict[str, tuple[tuple[int, ...], BlockType, int]] = {}
    for _ in range(count):
        name = cursor.text(MAX_NAME_BYTES)
        if name in found:
            raise ValueError(f"the tensor {name!r} appears twice")
        found[name] = _described(cursor, name, alignment)
    data = -(-cursor.position // alignment) * alignment
    tensors = {
        name: TensorInfo(kind.name, shape, data + offset, kind.nbytes(math.prod(shape)))
        for name, (shape, kind, offset) in found.items()
    }
    return tensors, _check_layout(tensors, data)


def _described(cursor: Cursor, name: str, alignment: int) -> tuple[tuple[int, ...], BlockType, int]:
    axes = int(cursor.number("I"))
    if not 1 <= axes <= MAX_AXES:
        raise ValueError(f"the tensor {name!r} has {axes} axes; 1 to {MAX_AXES} are possible")
    sizes = [int(cursor.number("Q")) for _ in range(axes)]
    code, offset = int(cursor.number("I")), int(cursor.number("Q"))
    if math.prod(sizes) >= 2**60 or not all(sizes):
        raise ValueError(f"the tensor {name!r} has the sizes {sizes}")
    if code not in TYPES:
        raise ValueError(f"the tensor {name!r} has the unknown type {code}")
    kind = TYPES[code]
    if sizes[0] % kind.block:
        raise ValueError(
            f"the tensor {name!r} has rows of {sizes[0]}; {kind.name} needs whole blocks of "
            f"{kind.block}"
        )
    if offset % alignment or offset >= 2**60:
        raise ValueError(f"the tensor {name!r} begins at {offset}, no multiple of {alignment}")
    return tuple(reversed(sizes)), kind, offset


def _check_layout(tensors: Mapping[str, TensorInfo], data: int) -> int:
    """Check that no two tensors overlap; return where the last one ends."""
    end = data if tensors else 0  # the padding before no tensors may be missing
    for name, info in sorted(tensors.items(), key=lambda item: item[1].offset):
        if info.offset < end:
            raise ValueError(f"the tensor {name!r} overlaps the one before it")
        end = info.offset + info.nbytes
    return end
