"""A Core ML package as a step, run by our own interpreter: what a Mac would load, without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilepack.contract.manifest import Manifest
from mobilepack.harness.runner import Logits, TokenArray
from mobilepack.models.static_session import StaticSession

if TYPE_CHECKING:
    from mobilepack.mil.execute import Observer


class MilProgram:
    """Feeds the functions `prefill` and `decode`; each value is rounded to its declared type.

    Attributes:
        methods: Names of all functions.
        observe: Shown every value of every call, see `Interpreter.run`.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Open a package; weights stay mapped."""
        import torch

        from mobilepack.mil.interpreter import Interpreter
        from mobilepack.mil.mlpackage import open_mlpackage

        if manifest.static is None:
            raise ValueError("the program is not of the static form")
        torch.set_num_threads(threads)
        self._interpreter = Interpreter(open_mlpackage(path))
        self._inputs = {m.name: [t.name for t in m.inputs] for m in manifest.methods}
        self.methods = frozenset(self._inputs)
        self._session = StaticSession(manifest.static, manifest.methods, self._run)
        self.observe: Observer | None = None

    def _run(self, name: str, inputs: Sequence[Any]) -> list[Any]:
        given = dict(zip(self._inputs[name], inputs, strict=True))
        made = self._interpreter.run(given, name, observe=self.observe)
        return [output.numpy() for output in made.values()]

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on; return the last one's logits [V]."""
        return self._session(tokens, position)
