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


def _compiled(change: dict[str, Any]) -> None:
    """Change what the compiler is given; the reference of a quantised program stays right."""
    from mobilepack.backends.qnn.contexts import FloatOperands, IntegerOperands

    def changed(plain: Any) -> Any:
        def given(self: Any, tensor: Any) -> Any:
            found = plain(self, tensor)
            return change[tensor.name](found) if tensor.name in change else found

        return given

    for kind in (FloatOperands, IntegerOperands):
        for method in ("matrix", "constant"):
            setattr(kind, method, changed(getattr(kind, method)))


def _transposed() -> None:
    _compiled({"layers.0.o.weight": lambda w: w.T.copy()})


def _swapped() -> None:
    """Let the heads 1 and 3 of four change places."""
    from dataclasses import replace

    import torch

    order = torch.arange(64).view(4, 16)[[0, 3, 2, 1]].flatten()

    def swapped(matrix: Any) -> Any:
        integers, scales = matrix.integers[:, order], matrix.scales[order]
        return replace(matrix, integers=integers.contiguous(), scales=scales)

    _compiled({"layers.1.q.weight": swapped})


def _squeezed() -> None:
    """Every fourth of an angle, as a rotation that is scaled by 4."""
    import numpy as np

    def angles(table: Any) -> Any:
        half = table.shape[1]
        frequencies = 10000.0 ** (-np.arange(half) / half)
        return np.arange(len(table))[:, None] / 4 * frequencies

    _compiled(
        {
            "tables.cos_0": lambda t: np.cos(angles(t)).astype(np.float32),
            "tables.sin_0": lambda t: np.sin(angles(t)).astype(np.float32),
        }
    )


def _scaled(row: int, block: int | None) -> None:
    """Let a row have 16 times its scale, or a block of it the least there is."""
    from dataclasses import replace

    def scaled(matrix: Any) -> Any:
        if block is None:
            scales = matrix.scales.clone()
            scales[row] *= 16
            return replace(matrix, scales=scales)
        blocks = matrix.block_scales.clone()
        blocks[row, block] = 1
        return replace(matrix, block_scales=blocks)

    _compiled({"layers.0.up.weight": scaled})


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
