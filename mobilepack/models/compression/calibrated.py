"""Weights whose integers are decided: by a calibration, kept on disk beside the build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilepack.models.encodings import linear_encoding
from mobilepack.models.quantization import QuantisedRows, quantise
from mobilepack.models.source import Source, View

if TYPE_CHECKING:
    import torch


class Calibrated(View):
    """Parameters with integers and scales of their own, as `models/quantization.py` asks for them.

    Parameters made of the same numbers have the same integers, because the file stores them once:
    blocks that share a map, and a tied head with its int4 embedding (docs/decisions/0007).
    """

    def __init__(self, base: Source, folder: Path, group: int) -> None:
        """Open (or begin) a store.

        Args:
            base: The weights.
            folder: Where integers and scales are written, in hidden files.
            group: Columns per scale.
        """
        super().__init__(base)
        self._folder = folder
        self._group = group
        self._owner: dict[str, str] = {}
        first: dict[str, str] = {}
        for name in base.names():
            self._owner[name] = first.setdefault(base.identity(name), name)

    @property
    def complete(self) -> bool:
        """Whether every weight is calibrated."""
        return self._marker.exists()

    @property
    def _marker(self) -> Path:
        return self._folder / ".calibrated"

    def finish(self) -> None:
        """Note that every weight is calibrated."""
        self._marker.touch()

    def takes(self, name: str) -> bool:
        """Say whether a matrix is stored as int4, which is what calibration is about."""
        return linear_encoding(self.shape(name)[1], self._group)[0] == "int4"

    def owner(self, name: str) -> str:
        """Return the first of the parameters that are made of the same numbers."""
        return self._owner[name]

    def group(self, name: str) -> int:
        """Return the columns per scale of a matrix."""
        return linear_encoding(self.shape(name)[1], self._group)[1]

    def write(self, name: str, start: int, rows: QuantisedRows) -> None:
        """Keep rows from `start` on."""
        for part, values in ((rows.values, True), (rows.scales, False)):
            path = self._path(name, values)
            path.touch()
            with path.open("r+b") as file:
                file.seek(start * part.shape[1] * part.element_size())
                file.write(part.contiguous().numpy().tobytes())

    def quantised(
        self, name: str, rows: torch.Tensor, start: int, encoding: str, group: int
    ) -> QuantisedRows:
        """Return calibrated rows, or plainly rounded ones where there are none."""
        suits = encoding in ("int4", "embedding4") and group == self.group(name)
        if not suits or not self._path(name, True).exists():
            return quantise(rows, encoding, group)
        values = self._read(name, start, len(rows), values=True)
        scales = self._read(name, start, len(rows), values=False)
        if encoding == "embedding4":  # kept in fp16 there; see quantise_embedding4
            scales = scales.half().float()
        return QuantisedRows(values, scales)

    def _read(self, name: str, start: int, count: int, *, values: bool) -> torch.Tensor:
        import torch

        columns = self.shape(name)[1]
        kind = np.dtype(np.int8 if values else np.float32)
        width = columns if values else columns // self.group(name)
        found = np.fromfile(
            self._path(name, values),
            dtype=kind,
            count=count * width,
            offset=start * width * kind.itemsize,
        )
        return torch.from_numpy(found.reshape(count, width))

    def _path(self, name: str, values: bool) -> Path:
        part = "values" if values else "scales"
        return self._folder / f".calibrated.{self._owner[name]}.{part}"
