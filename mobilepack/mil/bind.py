"""From an operator and what its arguments are bound to, the call that computes it.

Everything that is known when the program is loaded is resolved here: constants become Python
values or tensors inside the call, so that a step costs one call with the tensors that change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from torch import Tensor

from mobilepack.mil.compressed import Compressed
from mobilepack.mil.ops.registry import Kind, Operator
from mobilepack.mil.program import Constant, Operation
from mobilepack.mil.tensors import CARRIERS, ROUNDED, carried, static, stored_tensor, unreadable
from mobilepack.mil.types import TensorType
from mobilepack.mil.weights import LARGE, Weight, WeightStore

Rounding = Literal["declared", "none"]
Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that is computed while the program runs: its place in the frame."""

    index: int


# What a name stands for.
Source = Slot | Constant | tuple[Compressed, int]


@dataclass(frozen=True, slots=True)
class Bound:
    """A call, and the slots whose values it takes, in order."""

    call: Call
    slots: tuple[int, ...]


def weight_of(source: Source, store: WeightStore) -> Weight | None:
    """Return a large or compressed constant as a weight, None for anything else."""
    if isinstance(source, tuple):
        return store.compressed(*source)
    if isinstance(source, Constant) and not source.is_text and source.type.elements >= LARGE:
        return store.plain(source)
    return None


def _dynamic(kind: Kind) -> Callable[[Tensor], Any] | None:
    """Return what makes a kernel's plain argument of a tensor; None where it takes the tensor."""
    makers: dict[Kind, Callable[[Tensor], Any]] = {
        Kind.INT: lambda x: int(x.item()),
        Kind.FLOAT: lambda x: float(x.item()),
        Kind.BOOL: lambda x: bool(x.item()),
        Kind.INTS: lambda x: tuple(x.reshape(-1).tolist()),
        Kind.BOOLS: lambda x: tuple(bool(v) for v in x.reshape(-1).tolist()),
    }
    return makers.get(kind)


class _Template:
    """Arguments in the kernel's order; some are filled in at each call."""

    def __init__(self, store: WeightStore) -> None:
        self.store = store
        self.values: list[Any] = []
        self.slots: list[int] = []
        # (place, what makes the argument of the slots' values)
        self.fill: list[tuple[int, Callable[[list[Any]], Any]]] = []

    def _add(self, make: Callable[[list[Any]], Any]) -> None:
        self.fill.append((len(self.values), make))
        self.values.append(None)

    def put(self, source: Source, kind: Kind) -> None:
        """Add one argument."""
        if isinstance(source, Slot):
            self._put_slot(source, kind)
            return
        weight = weight_of(source, self.store) if kind is Kind.TENSOR else None
        if weight is not None:
            self._add(lambda given: weight.full())
        else:
            self.values.append(constant_value(source, kind, self.store))

    def _put_slot(self, source: Slot, kind: Kind) -> None:
        number, make = len(self.slots), _dynamic(kind)
        self.slots.append(source.index)
        if make is None:
            self._add(itemgetter(number))
        else:
            self._add(lambda given: make(given[number]))

    def put_all(self, sources: list[Source]) -> None:
        """Add one argument that is a tuple of tensors."""
        inner = _Template(self.store)
        for source in sources:
            inner.put(source, Kind.TENSOR)
        first, last = len(self.slots), len(self.slots) + len(inner.slots)
        self.slots += inner.slots
        self._add(lambda given: tuple(inner.arguments(given[first:last])))

    def arguments(self, given: list[Any]) -> list[Any]:
        """Return the arguments of one call."""
        args = list(self.values)
        for place, make in self.fill:
            args[place] = make(given)
        return args


def constant_value(source: Source, kind: Kind, store: WeightStore) -> Any:
    """Return a constant as a kernel takes it."""
    if isinstance(source, Constant):
        if source.is_text or kind is not Kind.TENSOR:
            return static(source, kind)
        return carried(stored_tensor(source), source.type.dtype).clone()
    if isinstance(source, Slot):
        raise TypeError("a slot is no constant")
    return store.compressed(*source).full()


def bind(
    operation: Operation, entry: Operator, sources: dict[str, list[Source]], store: WeightStore
) -> Bound:
    """Return the call of an operator.

    Raises:
        UsageError: An argument is missing, not known to this operator, or of no use to it.
    """
    _check_names(operation, entry, sources)
    special = _special(operation, sources, store)
    if special is not None:
        return special
    template = _Template(store)
    names: list[str] = []
    for parameter in entry.parameters:
        if parameter.name not in sources:
            continue
        names.append(parameter.argument)
        bound = sources[parameter.name]
        if parameter.kind is Kind.TENSORS:
            template.put_all(bound)
        elif len(bound) == 1:
            template.put(bound[0], parameter.kind)
        else:
            raise unreadable(operation, f"{parameter.name} has {len(bound)} values")
    return Bound(_call(entry, template, names), tuple(template.slots))


def _check_names(operation: Operation, entry: Operator, sources: dict[str, list[Source]]) -> None:
    known = {parameter.name for parameter in entry.parameters}
    extra = sorted(set(sources) - known)
    if extra:
        raise unreadable(operation, f"it has the parameter {extra[0]!r}; known are {sorted(known)}")
    needed = {parameter.name for parameter in entry.parameters if parameter.required}
    missing = sorted(needed - set(sources))
    if missing:
        raise unreadable(operation, f"it lacks the parameter {missing[0]!r}")


def _call(entry: Operator, template: _Template, names: list[str]) -> Call:
    """Return a function of the slots' values; the plainest that does it."""
    kernel = entry.kernel
    leading = [parameter.argument for parameter in entry.parameters[: len(names)]] == names
    count = len(template.slots)
    plain = len(template.fill) == count and all(value is None for value in template.values[:count])
    kinds = [p.kind for p in entry.parameters if p.argument in names]
    plain = plain and all(kind is Kind.TENSOR for kind in kinds[:count])
    if leading and plain:
        rest = template.values[count:]
        return (lambda *given: kernel(*given, *rest)) if rest else kernel
    if leading:
        return lambda *given: kernel(*template.arguments(list(given)))
    return lambda *given: kernel(**dict(zip(names, template.arguments(list(given)), strict=True)))


def _special(
    operation: Operation, sources: dict[str, list[Source]], store: WeightStore
) -> Bound | None:
    """Return a faster call where a weight is known: products and look-ups."""
    ways = {"linear": _linear, "conv": _pointwise, "gather": _table}
    way = ways.get(operation.type)
    return None if way is None else way(operation, sources, store)


def _linear(
    operation: Operation, sources: dict[str, list[Source]], store: WeightStore
) -> Bound | None:
    """Multiply by a weight that stays as it is stored."""
    x, weight = sources["x"][0], weight_of(sources["weight"][0], store)
    if not isinstance(x, Slot) or weight is None or not weight.type.dtype.is_float:
        return None
    bias = _vector(sources, store)
    return None if bias is False else Bound(lambda v: weight.product(v, bias), (x.index,))


def _vector(sources: dict[str, list[Source]], store: WeightStore) -> Any:
    """Return a constant bias, None where there is none, False where it is computed."""
    if "bias" not in sources:
        return None
    source = sources["bias"][0]
    return False if isinstance(source, Slot) else constant_value(source, Kind.TENSOR, store)


def _pointwise(
    operation: Operation, sources: dict[str, list[Source]], store: WeightStore
) -> Bound | None:
    """Compute a convolution of kernel size 1 as a product."""
    x, weight = sources["x"][0], weight_of(sources["weight"][0], store)
    if not isinstance(x, Slot) or weight is None or not _is_pointwise(sources, weight.type):
        return None
    bias = _vector(sources, store)
    if bias is False:
        return None
    sizes = weight.type.sizes

    def call(v: Tensor) -> Tensor:
        batch, channels, *places = v.shape
        rows = v.reshape(batch, channels, math.prod(places)).mT
        return weight.product(rows, bias).mT.reshape(batch, sizes[0], *places)

    return Bound(call, (x.index,))


def _is_pointwise(sources: dict[str, list[Source]], kind: TensorType) -> bool:
    """Say whether every window of a convolution is one place and all channels."""
    plain = {"strides": 1, "pad": 0, "groups": 1}
    for name, wanted in plain.items():
        for source in sources.get(name, ()):
            if not isinstance(source, Constant):
                return False
            values = static(source, Kind.INTS)
            if not isinstance(values, tuple) or any(value != wanted for value in values):
                return False
    return all(size == 1 for size in kind.sizes[2:]) and kind.dtype.is_float


def _table(
    operation: Operation, sources: dict[str, list[Source]], store: WeightStore
) -> Bound | None:
    """Look up rows of a table as it is stored; the step widens what was found."""
    weight = weight_of(sources["x"][0], store)
    indices = sources["indices"][0]
    axis = sources.get("axis", [None])[0]
    if weight is None or not isinstance(indices, Slot):
        return None
    if not isinstance(axis, Constant) or static(axis, Kind.INT) != 0:
        return None
    if any(not isinstance(source, Constant) for source in sources.get("batch_dims", ())):
        return None
    if any(static(s, Kind.INT) for s in sources.get("batch_dims", ()) if isinstance(s, Constant)):
        return None

    def call(index: Tensor) -> Tensor:
        rows = weight.look_up(index.reshape(-1).long())
        return rows.reshape(*index.shape, *rows.shape[1:])

    return Bound(call, (indices.index,))


def finisher(kind: TensorType, *, moves: bool, rounding: Rounding) -> Call:
    """Return what makes a kernel's result a value of its declared type."""
    dtype = kind.dtype
    carrier = CARRIERS[dtype]
    target = ROUNDED.get(dtype)
    if target is not None and rounding == "declared" and not moves:
        return lambda x: x.to(target).to(carrier)
    return lambda x: x if x.dtype == carrier else x.to(carrier)
