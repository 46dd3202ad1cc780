"""The header of a safetensors file, validated completely before any of it is believed.

The format (https://github.com/huggingface/safetensors#format, version 0.8): 8 bytes little-endian
header length N, N bytes of JSON, then the tensors' bytes without holes or overlaps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mobilepack.errors import UsageError
from mobilepack.models.config import Json, JsonObject, parse_object, show
from mobilepack.models.weight_file import TensorInfo, truncated, unreadable

# safetensors/src/tensor.rs 0.8: MAX_HEADER_SIZE
MAX_HEADER_BYTES = 100_000_000
# safetensors/src/tensor.rs 0.8: Dtype::bitsize
DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8)
    | dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
    | dict.fromkeys(("I32", "U32", "F32"), 32)
    | dict.fromkeys(("I64", "U64", "F64", "C64"), 64)
)


def malformed(path: Path, why: str) -> UsageError:
    """Return the error for a file that breaks the safetensors format."""
    return UsageError(
        "invalid-safetensors",
        f"{path} is not a valid safetensors file",
        why=why,
        next="download or copy the file again, or write it again with the safetensors library",
    )


def read_header(path: Path, descriptor: int) -> tuple[bytes, int]:
    """Return the header's JSON bytes and the file's size, after checking the header's length."""
    try:
        size = os.fstat(descriptor).st_size
        prefix = os.pread(descriptor, 8, 0)
        if size < 8 or len(prefix) < 8:
            raise truncated(path, f"it has {size} bytes; even an empty file needs 10")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise malformed(path, f"it claims a header of {length} bytes; 100 MB is the most")
        if 8 + length > size:
            raise truncated(path, f"it has {size} bytes; its header alone needs {8 + length}")
        raw = os.pread(descriptor, length, 8)
    except OSError as err:
        raise unreadable(path, err) from err
    if len(raw) < length:
        raise truncated(path, "it shrank while its header was read")
    return raw, size


def parse_header(path: Path, raw: bytes, size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return the tensors and the metadata of a header, validated against the file's size.

    Raises:
        UsageError: Anything is not as the format wants it.
    """
    try:
        if not raw.startswith(b"{"):
            raise ValueError("its header does not begin with '{'")
        header = parse_object(raw)
        metadata = _metadata(header.pop("__metadata__", None))
        data = 8 + len(raw)
        tensors = {name: _tensor(name, entry, data) for name, entry in header.items()}
        end = _check_layout(tensors, data)
    except ValueError as err:
        raise malformed(path, str(err)) from err
    if end > size:
        raise truncated(path, f"it has {size} bytes; its header promises {end}")
    if end < size:
        raise malformed(path, f"{size - end} bytes at its end belong to no tensor")
    return tensors, metadata


def _metadata(value: Json) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("__metadata__ is not a map from text to text")
    return {key: str(text) for key, text in value.items()}


def _tensor(name: str, entry: Json, data: int) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is {show(entry)}; dtype, shape and data_offsets are needed")
    dtype, shape, begin, end = _entry_values(name, entry)
    bits = DTYPE_BITS[dtype] * math.prod(shape)
    if bits % 8 or end - begin != bits // 8:
        raise ValueError(
            f"{name!r} has {end - begin} bytes; {dtype} {show(list(shape))} needs {bits / 8:g}"
        )
    return TensorInfo(dtype, shape, data + begin, end - begin)


def _entry_values(name: str, entry: JsonObject) -> tuple[str, tuple[int, ...], int, int]:
    dtype, shape = entry["dtype"], _naturals(entry["shape"])
    offsets = _naturals(entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"{name!r} has the unknown dtype {show(dtype)}")
    if shape is None or len(shape) > 16:
        raise ValueError(f"{name!r} has the shape {show(entry['shape'])}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name!r} has the data_offsets {show(entry['data_offsets'])}")
    return dtype, shape, offsets[0], offsets[1]


def _naturals(value: Json) -> tuple[int, ...] | None:
    """Return a list of integers in 0 … 2^53 as a tuple, None for anything else."""
    if not isinstance(value, list):
        return None
    items = [v for v in value if isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 2**53]
    return tuple(items) if len(items) == len(value) else None


def _check_layout(tensors: dict[str, TensorInfo], data: int) -> int:
    """Check that the tensors tile the data without holes or overlaps; return where they end."""
    position = data
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if info.offset != position:
            kind = "overlaps the tensor before it" if info.offset < position else "leaves a hole"
            raise ValueError(f"{name!r} {kind} at byte {min(info.offset, position)}")
        position += info.nbytes
    return position
