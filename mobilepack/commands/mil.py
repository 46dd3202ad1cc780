"""Run, show and compare Core ML programs: `mobilepack mil`."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilepack.errors import UsageError
from mobilepack.mil.opened import Opened, open_any
from mobilepack.mil.program import OPSETS, Function, Program

if TYPE_CHECKING:
    from mobilepack.mil.bind import Rounding
    from mobilepack.mil.execute import Observer
    from mobilepack.mil.trace import Comparison, Difference, Traced


@dataclass(frozen=True, slots=True)
class Port:
    """An input, output or state with its type as text."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class FunctionView:
    """A function.

    Attributes:
        system: The operating system that its opset came with.
        operators: How often each operator is used, the most frequent first.
        unknown: Operators that the interpreter does not know.
        listing: One line per operation, where it was asked for.
    """

    name: str
    opset: str
    system: str
    inputs: tuple[Port, ...]
    states: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: Mapping[str, int]
    unknown: tuple[str, ...]
    listing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProgramView:
    """A Core ML program; `key` names it among the delegates of a `.pte`."""

    key: str
    specification_version: int
    weight_bytes: int
    default: str
    functions: tuple[FunctionView, ...]


@dataclass(frozen=True, slots=True)
class MethodView:
    """A method of a `.pte`: its delegates, and the kernels that run outside them."""

    name: str
    delegates: tuple[str, ...]
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileView:
    """What a file holds."""

    path: Path
    programs: tuple[ProgramView, ...]
    methods: tuple[MethodView, ...]


def show(path: Path, *, listing: bool = False) -> FileView:
    """Describe the programs of an `.mlpackage` or a `.pte`.

    Raises:
        MobilepackError: The file is not there, damaged, or no Core ML program.
    """
    opened = open_any(path)
    programs = tuple(
        ProgramView(
            key,
            program.specification_version,
            program.weight_bytes,
            program.default,
            tuple(_function_view(item, listing) for item in program.functions.values()),
        )
        for key, program in opened.packages.items()
    )
    return FileView(path, programs, _methods(opened))


def _methods(opened: Opened) -> tuple[MethodView, ...]:
    if opened.pte is None:
        return ()
    from mobilepack.mil.pte import KernelCall

    return tuple(
        MethodView(
            method.name,
            tuple(item.id for item in method.delegates),
            tuple(item.operator for item in method.instructions if isinstance(item, KernelCall)),
        )
        for method in opened.pte.methods.values()
    )


def _function_view(function: Function, listing: bool) -> FunctionView:
    from mobilepack.mil.ops import find
    from mobilepack.mil.plan import STRUCTURAL

    counts = Counter(op.type for op in function.block.walk() if op.type != "const")
    unknown = [
        kind for kind in counts if kind not in STRUCTURAL and find(kind, function.opset) is None
    ]
    return FunctionView(
        function.name,
        function.opset,
        OPSETS[function.opset],
        _ports({item.name: item.type for item in function.tensors}),
        _ports(function.states),
        _ports({item.name: item.type for item in function.outputs}),
        dict(counts.most_common()),
        tuple(sorted(unknown)),
        tuple(_lines(function)) if listing else (),
    )


def _ports(items: Mapping[str, object]) -> tuple[Port, ...]:
    return tuple(Port(name, str(kind)) for name, kind in items.items())


def _lines(function: Function) -> list[str]:
    lines = []
    for operation in function.block.walk():
        bound = ", ".join(
            f"{name}={', '.join(item if isinstance(item, str) else str(item.type) for item in to)}"
            for name, to in operation.inputs.items()
        )
        results = ", ".join(f"{item.name}: {item.type}" for item in operation.outputs)
        lines.append(f"{results} = {operation.type}({bound})")
    return lines


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

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in results.items()})


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
