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

_TIED = "embed.weight"
_HEAD = "head.weight"


class Calibrated(View):
    """Parameters with integers and scales of their own, as `models/quantization.py` asks for them.

    A tied head lends its integers to an int4 embedding table of the same groups, which is how the
    file stores both (docs/decisions/0007).
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
        self._tied = base.identity(_TIED) == base.identity(_HEAD)

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
        owner = _HEAD if name == _TIED and self._tied else name
        suits = encoding in ("int4", "embedding4") and group == self.group(owner)
        if not suits or not self._path(owner, True).exists():
            return quantise(rows, encoding, group)
        values = self._read(owner, start, len(rows), values=True)
        scales = self._read(owner, start, len(rows), values=False)
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
        return self._folder / f".calibrated.{name}.{'values' if values else 'scales'}"
