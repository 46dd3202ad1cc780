"""Write a program file: every weight is read once, quantised, packed and put in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from mobilepack.backends.xnnpack.layout import (
    Bytes,
    FileMap,
    HeadRows,
    Matrix,
    Padded,
    Positions,
    Region,
    Table,
    Transposed,
    Vector,
)
from mobilepack.models.quantization import QuantisedRows, quantised_rows

_CHUNK_ELEMENTS = 1 << 21  # elements of a matrix in memory at once, 8 MB in float32


class WeightSource(Protocol):
    """Parameters by the decoder's names, read in float32."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` (included) to `stop` (excluded) as float32."""

    def tensor(self, name: str) -> torch.Tensor:
        """Read a whole small parameter as float32."""


class ProgramFile:
    """The file under construction; regions may be written in any order."""

    def __init__(self, path: Path, base: int) -> None:
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._base = base

    def write(self, offset: int, data: npt.NDArray[Any] | bytes) -> int:
        """Write bytes at an offset relative to the first segment; returns their count."""
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).data
        size = memoryview(raw).nbytes
        self._file.seek(self._base + offset)
        view = memoryview(raw).cast("B")
        while view:
            view = view[self._file.write(view) :]
        return size

    def finish(self, head: bytes, size: int) -> None:
        """Write the head, set the file's length and force it to disk."""
        self.write(-self._base, head)
        self._file.truncate(self._base + size)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where content comes from.

    Attributes:
        weights: The parameters.
        tables: From `models/tables.py`.
    """

    weights: WeightSource
    tables: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Observer:
    """What to leave out, and who wants to know.

    Attributes:
        skip: Indices of regions that are in the file already.
        on_bytes: Called with the bytes written (or skipped) since the last call.
        on_region: Called with the index of each region that is complete.
    """

    skip: frozenset[int] = frozenset()
    on_bytes: Callable[[int], None] = lambda count: None
    on_region: Callable[[int], None] = lambda index: None


def fill(
    file: ProgramFile, layout: FileMap, sources: Sources, observer: Observer = Observer()
) -> None:
    """Write every region of a layout."""
    weights, on_bytes = sources.weights, observer.on_bytes
    scales = {
        _matrix_key(region.content): region
        for region in layout.regions
        if isinstance(region.content, Matrix) and region.content.part == "scales"
    }
    with_values = {
        _matrix_key(region.content)
        for region in layout.regions
        if isinstance(region.content, Matrix) and region.content.part == "values"
    }
    for index, region in enumerate(layout.regions):
        content = region.content
        if index in observer.skip:
            on_bytes(region.size)
            continue
        if not isinstance(content, Matrix):
            on_bytes(file.write(region.offset, _small(content, sources)))
        elif content.part == "scales" and _matrix_key(content) not in with_values:
            on_bytes(_write_scales(file, region, content, weights))
        elif content.part == "values":
            scale_region = scales.get(_matrix_key(content))
            for written in _write_matrix(file, region, scale_region, weights):
                on_bytes(written)
        observer.on_region(index)


def _small(
    content: Bytes | Vector | Transposed | Padded | Table | Positions, sources: Sources
) -> npt.NDArray[Any] | bytes:
    """Return content that is not worth reading in chunks."""
    weights = sources.weights
    if isinstance(content, Bytes):
        return content.data
    if isinstance(content, Table):
        return sources.tables[content.name].numpy()
    if isinstance(content, Positions):
        end = content.start + content.count
        return weights.rows(content.parameter, content.start, end).numpy()
    if isinstance(content, Padded):
        matrix = weights.tensor(content.parameter)
        return torch.nn.functional.pad(matrix, (0, content.width - matrix.shape[1])).numpy()
    if isinstance(content, Transposed):
        return weights.tensor(content.parameter).T.contiguous().numpy()
    return _vector(weights, content)


def _matrix_key(content: Matrix) -> tuple[str, str, HeadRows | None]:
    return content.parameter, content.encoding, content.rows


def _vector(weights: WeightSource, content: Vector) -> npt.NDArray[Any]:
    return _chosen(weights.tensor(content.parameter), content.rows).numpy()


def _chosen(values: torch.Tensor, rows: HeadRows | None) -> torch.Tensor:
    if rows is None:
        return values
    heads: torch.Tensor = values.unflatten(0, (-1, rows.period))
    return heads[:, rows.start : rows.stop : rows.step].flatten(0, 1).contiguous()


def _write_matrix(
    file: ProgramFile, region: Region, scale_region: Region | None, weights: WeightSource
) -> Iterator[int]:
    content = region.content
    if not isinstance(content, Matrix):
        raise TypeError(f"not a matrix: {content}")
    values_at = region.offset
    scales_at = scale_region.offset if scale_region is not None else 0
    for chunk in _chunks(weights, content):
        if content.encoding == "fp32":
            written = file.write(values_at, _chosen(chunk.rows, chunk.choice).numpy())
            values_at += written
        else:
            quantised = _quantised(weights, content, chunk)
            written = file.write(values_at, _pack(quantised, content.encoding))
            values_at += written
            scales_at += file.write(scales_at, _scales(quantised, content.encoding))
        yield written


def _write_scales(file: ProgramFile, region: Region, content: Matrix, weights: WeightSource) -> int:
    """Write the scales of a matrix whose integers another region holds."""
    offset = region.offset
    for chunk in _chunks(weights, content):
        quantised = _quantised(weights, content, chunk)
        offset += file.write(offset, _scales(quantised, content.encoding))
    return region.size


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Whole rows from `start` on, and which of them the matrix takes (None: all)."""

    start: int
    rows: torch.Tensor
    choice: HeadRows | None


def _quantised(weights: WeightSource, content: Matrix, chunk: _Chunk) -> QuantisedRows:
    """Quantise whole rows, then choose those that the matrix takes."""
    coding = content.encoding, content.group
    found = quantised_rows(weights, content.parameter, chunk.rows, chunk.start, *coding)
    values, scales = (_chosen(part, chunk.choice) for part in (found.values, found.scales))
    return QuantisedRows(values, scales)


def _chunks(weights: WeightSource, content: Matrix) -> Iterator[_Chunk]:
    total, columns = weights.shape(content.parameter)
    step = max(1, _CHUNK_ELEMENTS // columns)
    if content.rows is not None and content.rows.period == total:  # a run, such as one expert's
        first, end = content.rows.start, content.rows.stop
        for start in range(first, end, step):
            rows = weights.rows(content.parameter, start, min(end, start + step))
            yield _Chunk(start, rows, None)
        return
    if content.rows is not None:
        step = max(1, step // content.rows.period) * content.rows.period
    for start in range(0, total, step):
        rows = weights.rows(content.parameter, start, min(total, start + step))
        yield _Chunk(start, rows, content.rows)


def _pack(quantised: QuantisedRows, encoding: str) -> npt.NDArray[Any]:
    """Return the stored bytes of quantised rows."""
    values = quantised.values
    if encoding == "int8":
        return values.numpy()
    unsigned = values.add(8).to(torch.uint8)
    even, odd = unsigned[:, ::2], unsigned[:, 1::2]
    low, high = (even, odd) if encoding == "int4" else (odd, even)
    return (low | high << 4).numpy()


def _scales(quantised: QuantisedRows, encoding: str) -> npt.NDArray[Any]:
    """Return the stored bytes of the scales: bf16 for linears, fp16 for int4 embeddings."""
    if encoding == "int4":
        return quantised.scales.to(torch.bfloat16).view(torch.int16).numpy()
    if encoding == "embedding4":
        return quantised.scales.half().numpy()
    return quantised.scales.numpy()
