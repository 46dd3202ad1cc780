"""What a Core ML program holds: `mobilepack mil show`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilepack.mil.opened import Opened, open_any
from mobilepack.mil.program import OPSETS, Function


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
