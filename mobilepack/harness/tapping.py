"""Run programs with more outputs than logits, in a child: a wrong program may crash."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mobilepack.errors import RunFailedError
from mobilepack.process import Child, child_env

CHILD = (sys.executable, "-P", "-m", "mobilepack.harness.tap_child")
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class TapCall:
    """A call of the program.

    Attributes:
        position: Of the first token.
        keep: Whether its outputs are wanted.
    """

    tokens: tuple[int, ...]
    position: int
    keep: bool


Outputs = dict[int, list[npt.NDArray[Any]]]
"""Per call that was kept, its outputs in order."""


class TapRunner:
    """A child that runs tapped programs; use it in a `with`."""

    def __init__(
        self, log: Path, timeout_s: float = 600.0, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the child.

        Args:
            log: What the runtime prints.
            timeout_s: Of one program.
            env: Of the child; this process' by default.
        """
        self._child = Child(CHILD, log=log, env=env or child_env())
        self._log, self._timeout_s = log, timeout_s

    def run(self, program: Path, calls: Sequence[TapCall], package: Path | None = None) -> Outputs:
        """Load a program, make the calls in order, and return what they gave.

        Args:
            program: Its file.
            calls: In order.
            package: Of a program in the static form, whose manifest says how it is called.

        Raises:
            RunFailedError: The runtime refused the program, died, or took too long.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-taps-") as folder:
            out = Path(folder) / "out.npz"
            job = {
                "program": str(program),
                "package": None if package is None else str(package),
                "calls": [
                    {"tokens": c.tokens, "position": c.position, "keep": c.keep} for c in calls
                ],
                "out": str(out),
            }
            self._child.send(json.dumps(job))
            try:
                answer = self._child.receive(self._timeout_s + _START_S)
            except TimeoutError as err:
                raise self._failed(str(err)) from err
            if answer != "ok":
                raise self._failed(answer or "the runtime died")
            found: Outputs = {}
            with np.load(out) as arrays:
                names = (name.split(".") for name in arrays.files)
                for call, output in sorted((int(a), int(b)) for a, b in names):
                    found.setdefault(call, []).append(arrays[f"{call}.{output}"])
        return found

    def _failed(self, why: str) -> RunFailedError:
        return RunFailedError(
            "tapped-run-failed",
            "cannot run the program with intermediate values as outputs",
            why=why,
            next=f"read {self._log}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.__exit__(kind, value, trace)
