"""Read bf16 tensors out of single or sharded safetensors files without copying them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LENGTH_BYTES = 8  # little-endian header length; huggingface/safetensors README, "Format"


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name a tensor and view its bits.

    Attributes:
        bits: bfloat16 bit patterns, mapped from the file, in the tensor's own shape.
    """

    name: str
    bits: NDArray[np.uint16]


def read_tensors(checkpoint: Path) -> Iterator[Tensor]:
    """Yield the tensors of a checkpoint folder, in file order.

    Raises:
        ValueError: A tensor is not bf16; the benchmarks write nothing else.
    """
    for path in sorted(checkpoint.glob("*.safetensors")):
        yield from _read_file(path)


def to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16 bit patterns to float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _read_file(path: Path) -> Iterator[Tensor]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=_LENGTH_BYTES + length)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path.name}: {name} is {entry['dtype']}, expected BF16")
        start, end = entry["data_offsets"]
        yield Tensor(name, data[start:end].view(np.uint16).reshape(entry["shape"]))
