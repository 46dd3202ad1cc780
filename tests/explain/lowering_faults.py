"""Faults of the code that lowers for QNN, in the processes that lower and run: its `sitecustomize`.

`plant` lets every Python that is started from now on import this file first, in which the fault
that `MOBILEPACK_TEST_FAULT` names is put into the code, in the child processes only. What is built
and what `--explain` makes again then have the same fault, as a real one would be in both.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "MOBILEPACK_TEST_FAULT"


def plant(patch: Any, name: str, folder: Path) -> None:
    """Let children begin with a fault."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(Path(__file__).read_text())
    before = os.environ.get("PYTHONPATH", "")
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), before))))
    patch.setenv(VARIABLE, name)


def _constants(change: dict[str, Any]) -> None:
    from mobilepack.backends.qnn.constants import Constants

    read = Constants.read

    def changed(self: Constants, tensor: Any) -> Any:
        found = read(self, tensor)
        return change[tensor.name](found) if tensor.name in change else found

    Constants.read = changed  # type: ignore[method-assign]


def _transposed() -> None:
    _constants({"layers.0.o.weight": lambda w: w.t().contiguous()})


def _swapped() -> None:
    _constants({"layers.1.q.weight": lambda w: w.view(4, 16, -1)[[0, 3, 2, 1]].reshape(w.shape)})


def _squeezed() -> None:
    """Every fourth of an angle, as a rotation that is scaled by 4."""
    import torch

    def angles(table: Any) -> Any:
        half = table.shape[1]
        frequencies = 10000.0 ** (-torch.arange(half) / half)
        return torch.arange(len(table))[:, None] / 4 * frequencies

    _constants(
        {
            "tables.cos_0": lambda t: angles(t).cos(),
            "tables.sin_0": lambda t: angles(t).sin(),
        }
    )


def _scaled(row: int, block: int | None) -> None:
    """Multiply the scale of a row, or of a block of it, of `layers.0.up` as it is compiled."""
    from dataclasses import replace

    from mobilepack.backends.qnn.contexts import IntegerOperands

    plain = IntegerOperands.matrix

    def scaled(self: IntegerOperands, tensor: Any) -> Any:
        found = plain(self, tensor)
        if tensor.name != "layers.0.up.weight" or isinstance(found, type(None)):
            return found
        if block is not None:
            blocks = found.block_scales.clone()
            blocks[row] = 1
            blocks[row, block] = 16
            return replace(found, block_scales=blocks)
        scales = found.scales.clone()
        scales[row] *= 16
        return replace(found, scales=scales)

    IntegerOperands.matrix = scaled  # type: ignore[method-assign]


def _sees_ahead() -> None:
    """Let every query of a prefill see the token after it."""
    import numpy as np

    from mobilepack.models.static_session import StaticSession

    plain = StaticSession._mask

    def mask(self: StaticSession, spec: Any, window: int, position: int, padding: int) -> Any:
        made = plain(self, spec, window, position, padding).copy()
        rows, past = made.shape[2], self._form.past
        for row in range(padding, rows - 1):
            made[0, 0, row, past + row + 1] = np.float32(0)
        return made

    StaticSession._mask = mask  # type: ignore[method-assign]


_FAULTS = {
    "transposed": _transposed,
    "swapped": _swapped,
    "squeezed": _squeezed,
    "scaled row": lambda: _scaled(5, None),
    "scaled block": lambda: _scaled(5, 1),
    "sees ahead": _sees_ahead,
}
_CHILDREN = (
    "mobilepack.backends.qnn.lower_child",
    "mobilepack.harness.host_child",
    "mobilepack.harness.tap_child",
)

if __name__ == "sitecustomize" and set(_CHILDREN) & set(sys.orig_argv):
    _FAULTS[os.environ[VARIABLE]]()
