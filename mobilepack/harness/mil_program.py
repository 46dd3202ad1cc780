"""A Core ML package as a step, run by our own interpreter: what a Mac would load, without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilepack.contract.manifest import FunctionCall, Manifest, Method
from mobilepack.harness.runner import Logits, TokenArray
from mobilepack.models.static_session import StaticSession

if TYPE_CHECKING:
    from torch import Tensor

    from mobilepack.mil.execute import Observer
    from mobilepack.mil.interpreter import Interpreter

NEW = "new_"  # see `contract.manifest.FunctionCall`

Tensors = Mapping[str, Any]
Call = Callable[[Method, Tensors, "Observer | None"], "dict[str, Tensor]"]


class MilProgram:
    """Feeds the methods `prefill` and `decode`; each value is rounded to its declared type.

    Attributes:
        methods: Names of all methods.
        observe: Shown every value of every call, see `Interpreter.run`.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Open the program of a package; weights stay mapped.

        Args:
            path: The `.mlpackage`, the folder of several, or a `.pte` with Core ML delegates.
            manifest: Of the package.
            threads: Of torch's kernels.
        """
        import torch

        if manifest.static is None:
            raise ValueError("the program is not of the static form")
        torch.set_num_threads(threads)
        self._methods = {method.name: method for method in manifest.methods}
        self.methods = frozenset(self._methods)
        self._call = _pte(path) if path.suffix == ".pte" else _packages(path, manifest)
        self._session = StaticSession(manifest.static, manifest.methods, self._run)
        self.observe: Observer | None = None

    def _run(self, name: str, inputs: Sequence[Any]) -> list[Any]:
        method = self._methods[name]
        given = dict(zip((t.name for t in method.inputs), inputs, strict=True))
        found = self._call(method, given, self.observe)
        return [found[t.name].numpy() for t in method.outputs]

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on; return the last one's logits [V]."""
        return self._session(tokens, position)


def _pte(path: Path) -> Call:
    """Return what runs a method of a `.pte`: its delegates in the interpreter, in its own order."""
    import torch

    from mobilepack.mil.pte import open_pte
    from mobilepack.mil.pte_run import PteRunner

    runner = PteRunner(open_pte(path))

    def call(method: Method, given: Tensors, observe: Observer | None) -> dict[str, Tensor]:
        tensors = [torch.from_numpy(given[t.name]) for t in method.inputs]
        results = runner.run(tensors, method.name, observe)
        return dict(zip((t.name for t in method.outputs), results, strict=True))

    return call


def _packages(path: Path, manifest: Manifest) -> Call:
    """Return what runs a method's calls one after the other."""
    programs = _Programs(path, manifest)

    def call(method: Method, given: Tensors, observe: Observer | None) -> dict[str, Tensor]:
        known: dict[str, Any] = dict(given)
        found: dict[str, Tensor] = {}
        for one in method.calls:
            made = programs.run(one, {name: known[name] for name in one.inputs}, observe)
            found |= {name.removeprefix(NEW): tensor for name, tensor in made.items()}
            known |= found
        return found

    return call


class _Programs:
    """The packages of a model; functions that share a state's name share the state."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        from mobilepack.mil.interpreter import Interpreter
        from mobilepack.mil.mlpackage import open_mlpackage
        from mobilepack.mil.weights import DEFAULT_BUDGET_BYTES, share_bytes

        names = dict.fromkeys(c.program for m in manifest.methods for c in m.calls)
        paths = {name: path if len(names) == 1 else path / name for name in names}
        share = share_bytes(DEFAULT_BUDGET_BYTES, len(names))
        self._programs: dict[str, Interpreter] = {
            name: Interpreter(open_mlpackage(at), budget_bytes=share) for name, at in paths.items()
        }
        self._state: dict[str, Tensor] = {}
        for call in (c for m in manifest.methods for c in m.calls):
            self._state |= self._programs[call.program].new_state(call.function)

    def run(
        self, call: FunctionCall, given: Tensors, observe: Observer | None
    ) -> dict[str, Tensor]:
        program = self._programs[call.program]
        return program.run(given, call.function, state=self._state, observe=observe)
