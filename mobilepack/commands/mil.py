"""Run and compare Core ML programs: `mobilepack mil run|diff`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilepack.contract.base import write_atomically
from mobilepack.errors import UsageError
from mobilepack.mil.opened import open_any
from mobilepack.mil.program import Program

if TYPE_CHECKING:
    from mobilepack.mil.bind import Rounding
    from mobilepack.mil.execute import Observer
    from mobilepack.mil.trace import Comparison, Difference, Traced


@dataclass(frozen=True, slots=True)
class Invocation:
    """How to call a program.

    Attributes:
        function: Function of an `.mlpackage`, method of a `.pte`; None for the default.
        inputs: An `.npz` with an array per input; None for random ones.
        calls: How often it is called with the same inputs, states kept in between.
    """

    function: str | None = None
    inputs: Path | None = None
    seed: int = 0
    calls: int = 1
    rounding: Rounding = "declared"
    budget_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class OutputView:
    """A result of the last call, summarised."""

    name: str
    shape: tuple[int, ...]
    least: float
    largest: float
    rms: float
    beyond_fp16: int


@dataclass(frozen=True, slots=True)
class RunView:
    """What a run gave.

    Attributes:
        written: The `.npz` with the outputs, None where none was asked for.
    """

    path: Path
    function: str
    rounding: str
    calls: int
    outputs: tuple[OutputView, ...]
    trace: tuple[Traced, ...]
    written: Path | None


def run(
    path: Path, how: Invocation, *, outputs: Path | None = None, trace: bool = False
) -> RunView:
    """Call a program and summarise its outputs; states begin at zero.

    Args:
        outputs: Where to write the outputs of the last call, as `.npz`.
        trace: Whether to summarise every intermediate value as well.

    Raises:
        MobilepackError: The program cannot be read or run, or the inputs do not fit it.
    """
    from mobilepack.mil.trace import traced

    session = Session(path, how)
    rows: list[Traced] = []
    results: dict[str, Any] = {}
    for call in range(how.calls):

        def observe(operation: Any, name: str, value: Any, call: int = call) -> None:
            rows.append(traced(call, operation.type, name, value))

        results = session.call(observe if trace else None)
    if outputs is not None:
        _write(outputs, results)
    views = []
    for name, value in results.items():
        row = traced(how.calls - 1, "output", name, value)
        views.append(OutputView(name, row.shape, row.least, row.largest, row.rms, row.beyond_fp16))
    return RunView(
        path, session.function, how.rounding, how.calls, tuple(views), tuple(rows), outputs
    )


class Session:
    """A program that is ready to be called again and again with the same inputs."""

    def __init__(self, path: Path, how: Invocation) -> None:
        from mobilepack.mil.weights import DEFAULT_BUDGET_BYTES

        self.how = how
        self.opened = open_any(path)
        budget = DEFAULT_BUDGET_BYTES if how.budget_bytes is None else how.budget_bytes
        if self.opened.pte is None:
            self._open_package(self.opened.only(), budget)
        else:
            self._open_pte(budget)

    def _open_package(self, program: Program, budget: int) -> None:
        from mobilepack.mil.interpreter import Interpreter

        runner = Interpreter(program, self.how.rounding, budget)
        function = runner.function(self.how.function)
        self.function = function.name
        kinds = {item.name: item.type for item in function.tensors}
        given = _inputs(self.how, kinds)
        self.call: Callable[[Observer | None], dict[str, Any]] = lambda observe: runner.run(
            given, function.name, observe=observe
        )

    def _open_pte(self, budget: int) -> None:
        from mobilepack.mil.pte_run import PteRunner

        pte = self.opened.pte
        assert pte is not None  # noqa: S101 - the caller looked
        runner = PteRunner(pte, self.how.rounding, budget)
        method = self.how.function or ("forward" if "forward" in pte.methods else None)
        self.function = method or next(iter(pte.methods))
        kinds = runner.inputs(self.function)
        given = list(_inputs(self.how, kinds).values())

        def call(observe: Observer | None) -> dict[str, Any]:
            results = runner.run(given, self.function, observe)
            return {f"output_{index}": value for index, value in enumerate(results)}

        self.call = call


def _inputs(how: Invocation, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a file, or random ones."""
    import torch

    if how.inputs is not None:
        return _read(how.inputs)
    generator = torch.Generator().manual_seed(how.seed)
    made = {}
    for name, kind in kinds.items():
        if not getattr(kind, "is_static", False):
            raise UsageError(
                "no-random-input",
                f"cannot make a random input {name!r}",
                why=f"its type is {kind}",
                next="give the inputs with --inputs FILE.npz",
            )
        if kind.dtype.is_float:
            made[name] = torch.randn(kind.sizes, generator=generator)
        else:
            made[name] = torch.randint(0, 2, kind.sizes, generator=generator)
    return made


def _read(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as err:
        raise UsageError(
            "invalid-inputs",
            f"cannot read the inputs {path}",
            why=str(err),
            next="write them with numpy.savez, one array per input",
        ) from err


def _write(path: Path, results: Mapping[str, Any]) -> None:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, **{name: value.numpy() for name, value in results.items()})
    write_atomically(path, file.getvalue())


@dataclass(frozen=True, slots=True)
class DiffView:
    """How two programs, or two ways of rounding one program, differ.

    Attributes:
        outputs: Every output of the last call.
        passed: Whether no value and no output differs beyond the tolerance.
    """

    first: Path
    second: Path
    rounding: tuple[str, str]
    calls: int
    tolerance: float
    intermediate: Comparison
    outputs: tuple[Difference, ...]
    passed: bool


def diff(first: Path, second: Path | None, how: Invocation, *, tolerance: float) -> DiffView:
    """Call two programs with the same inputs and compare every value that both compute.

    Args:
        second: The reference; None for the first program again with rounding off.

    Raises:
        MobilepackError: A program cannot be read or run, or their inputs differ.
    """
    from dataclasses import replace

    from mobilepack.mil.trace import compare_runs, difference

    other = replace(how, rounding="none") if second is None else how
    a, b = Session(first, how), Session(second or first, other)
    last: dict[str, dict[str, Any]] = {}

    def runner(side: str, session: Session) -> Any:
        def go(observe: Observer) -> None:
            for _ in range(how.calls):
                last[side] = session.call(observe)

        return go

    compared = compare_runs(runner("a", a), runner("b", b), tolerance)
    ours, theirs = last["a"], last["b"]
    if len(ours) != len(theirs):
        raise UsageError(
            "different-outputs",
            f"cannot compare {first} with {second}",
            why=f"they return {list(ours)} and {list(theirs)}",
            next="compare programs with the same outputs",
        )
    outputs = tuple(
        difference(how.calls - 1, "output", name, ours[mine], theirs[name])
        for mine, name in zip(ours, theirs, strict=True)
    )
    passed = compared.first is None and all(item.relative <= tolerance for item in outputs)
    rounding = (how.rounding, other.rounding)
    return DiffView(
        first, second or first, rounding, how.calls, tolerance, compared, outputs, passed
    )
