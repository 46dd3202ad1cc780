"""The table of operators: what computes each, what its parameters are, since which opset."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from torch import Tensor

# What a kernel's parameter may be annotated with, beside Tensor, int, float, bool and str.
Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Tensors = tuple[Tensor, ...]
Kernel = Callable[..., Any]
F = TypeVar("F", bound=Kernel)


class Kind(enum.Enum):
    """How an argument reaches a kernel: as a tensor, or as plain Python values."""

    TENSOR = "tensor"
    TENSORS = "tensors"
    INT = "int"
    INTS = "ints"
    FLOAT = "float"
    BOOL = "bool"
    BOOLS = "bools"
    TEXT = "text"


_KINDS: dict[object, Kind] = {
    Tensor: Kind.TENSOR,
    Tensors: Kind.TENSORS,
    int: Kind.INT,
    Ints: Kind.INTS,
    float: Kind.FLOAT,
    bool: Kind.BOOL,
    Bools: Kind.BOOLS,
    str: Kind.TEXT,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a kernel.

    Attributes:
        name: What MIL calls it.
        argument: What the kernel calls it.
    """

    name: str
    argument: str
    kind: Kind
    required: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """How one operator is computed from some opset on.

    Attributes:
        moves: Results are elements of the arguments, unchanged: nothing has to be rounded again.
        since: The first opset with this meaning.
    """

    name: str
    group: str
    kernel: Kernel
    parameters: tuple[Parameter, ...]
    moves: bool
    since: str


OPERATORS: dict[str, list[Operator]] = {}


def operator(name: str, *, moves: bool = False, since: str = "CoreML5") -> Callable[[F], F]:
    """Enter a kernel into the table; its signature says what each argument becomes.

    Raises:
        ValueError: The operator has a kernel for this opset already.
    """

    def enter(kernel: F) -> F:
        group = str(kernel.__module__).rpartition(".")[2]
        add(Operator(name, group, kernel, parameters_of(kernel), moves, since))
        return kernel

    return enter


def elementwise(kernels: Mapping[str, Kernel], names: tuple[str, ...], group: str) -> None:
    """Enter functions of tensors alone, called with the arguments in this order."""
    parameters = tuple(Parameter(name, name, Kind.TENSOR, required=True) for name in names)
    for name, kernel in kernels.items():
        add(Operator(name, group, kernel, parameters, moves=False, since="CoreML5"))


def add(entry: Operator) -> None:
    """Enter an operator; its newest meaning is found first.

    Raises:
        ValueError: The operator has a kernel for this opset already.
    """
    known = OPERATORS.setdefault(entry.name, [])
    if any(item.since == entry.since for item in known):
        raise ValueError(f"{entry.name} has two kernels since {entry.since}")
    known.append(entry)
    known.sort(key=lambda item: item.since, reverse=True)


def parameters_of(kernel: Kernel) -> tuple[Parameter, ...]:
    """Read a kernel's parameters from its annotations; `input_` stands for MIL's `input`.

    Raises:
        TypeError: An annotation is none of those that arguments can become.
    """
    hints = get_type_hints(kernel)
    found = []
    for item in inspect.signature(kernel).parameters.values():
        kinds = [_KINDS[hint] for hint in _alternatives(hints[item.name]) if hint in _KINDS]
        if len(kinds) != 1:
            raise TypeError(f"{kernel.__name__}: {item.name} is annotated {hints[item.name]}")
        required = item.default is inspect.Parameter.empty
        found.append(Parameter(item.name.rstrip("_"), item.name, kinds[0], required))
    return tuple(found)


def _alternatives(hint: Any) -> tuple[object, ...]:
    return (hint,) if hint in _KINDS else tuple(getattr(hint, "__args__", ()))


def find(name: str, opset: str) -> Operator | None:
    """Return an operator as an opset means it, None where there is none."""
    return next((item for item in OPERATORS.get(name, ()) if item.since <= opset), None)
