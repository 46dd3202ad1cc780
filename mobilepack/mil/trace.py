"""What flows through a program: every intermediate value, and where two runs part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mobilepack.mil.program import Operation

FP16_LARGEST = 65504.0


@dataclass(frozen=True, slots=True)
class Traced:
    """One computed value.

    Attributes:
        call: Which call of the program computed it, from 0.
        rms: Root of the mean square of its finite elements.
        beyond_fp16: Elements that are not finite or larger than fp16 holds.
    """

    call: int
    operator: str
    name: str
    shape: tuple[int, ...]
    least: float
    largest: float
    rms: float
    beyond_fp16: int


def traced(call: int, operator: str, name: str, value: Tensor) -> Traced:
    """Summarise a value."""
    shape = tuple(value.shape)
    flat = value.reshape(-1).to(torch.float64)
    finite = flat[torch.isfinite(flat)]
    beyond = int((flat.abs() > FP16_LARGEST).sum()) + int(torch.isnan(flat).sum())
    if not finite.numel():
        return Traced(call, operator, name, shape, math.nan, math.nan, math.nan, beyond)
    rms = float(finite.square().mean().sqrt())
    least, largest = float(finite.min()), float(finite.max())
    return Traced(call, operator, name, shape, least, largest, rms, beyond)


@dataclass(frozen=True, slots=True)
class Difference:
    """How one value differs between two runs.

    Attributes:
        relative: Root mean square of the difference over that of the second run's value.
        largest: Largest absolute difference.
    """

    call: int
    operator: str
    name: str
    relative: float
    largest: float


def difference(call: int, operator: str, name: str, first: Tensor, second: Tensor) -> Difference:
    """Compare a value of two runs; shapes that differ, or NaN in one of them, differ infinitely."""
    if first.shape != second.shape:
        return Difference(call, operator, name, math.inf, math.inf)
    a, b = first.to(torch.float64), second.to(torch.float64)
    gap = torch.where(a == b, 0.0, a - b)  # equal infinities do not differ
    gap = torch.where(torch.isnan(a) & torch.isnan(b), 0.0, gap)
    if not gap.numel():
        return Difference(call, operator, name, 0.0, 0.0)
    if not bool(torch.isfinite(gap).all()):
        return Difference(call, operator, name, math.inf, math.inf)
    finite = b[torch.isfinite(b)]
    scale = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    error = float(gap.square().mean().sqrt())
    relative = error / scale if scale else (math.inf if error else 0.0)
    return Difference(call, operator, name, relative, float(gap.abs().max()))


Runner = Callable[[Callable[[Operation, str, Tensor], None]], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, value by value.

    Attributes:
        compared: Values that both runs compute under the same name.
        unmatched: Values that only one of them computes.
        first: The first value beyond the tolerance, in the order of the second run.
        worst: The value that differs most.
    """

    compared: int
    unmatched: int
    first: Difference | None
    worst: Difference | None


def compare_runs(first: Runner, second: Runner, tolerance: float) -> Comparison:
    """Run two programs and compare the values that have the same name, in order.

    Args:
        first, second: Run their program, calling the observer for every value.
        tolerance: Largest relative difference (root mean square) that is still the same.
    """
    values: dict[tuple[int, str], Tensor] = {}
    counts: dict[str, int] = {}

    def keep(operation: Operation, name: str, value: Tensor) -> None:
        counts[name] = counts.get(name, 0) + 1
        values[counts[name] - 1, name] = value

    first(keep)
    total, seen, found = len(values), dict.fromkeys(counts, 0), list[Difference]()
    alone = 0

    def check(operation: Operation, name: str, value: Tensor) -> None:
        nonlocal alone
        call = seen.get(name, 0)
        seen[name] = call + 1
        other = values.pop((call, name), None)
        if other is None:
            alone += 1
            return
        found.append(difference(call, operation.type, name, other, value))

    second(check)
    beyond = next((item for item in found if not item.relative <= tolerance), None)
    worst = max(found, key=lambda item: item.relative, default=None)
    return Comparison(len(found), alone + total - len(found), beyond, worst)
