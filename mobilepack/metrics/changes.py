"""What changed from one build or run to another, and whether the change is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Better = Literal["lower", "higher", "neither"]
Status = Literal["same", "better", "worse", "differs", "unsure", "added", "removed"]

NEGLIGIBLE = 1e-9
"""Relative change below which two exact figures are the same number printed twice."""
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of a package or of its runs.

    Attributes:
        unit: `bytes`, `ms`, `tok/s`, `instructions`, or empty for a ratio or share.
        better: Which direction is good.
        samples: Raw samples of a measured figure, whose median `value` is; empty if it is exact.
        distrust: Why a measured figure must not decide anything; empty if it may.
    """

    name: str
    value: float
    unit: str = ""
    better: Better = "neither"
    samples: tuple[float, ...] = ()
    distrust: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after.

    Attributes:
        ratio: After over before; None where one is missing or before is zero.
        low: Lower end of the ratio's 95 % interval (bootstrap of both medians); equals `ratio`
            for exact figures. `high` is the upper end.
        distrust: Why neither side's measurement must decide anything.
    """

    name: str
    unit: str
    better: Better
    before: float | None
    after: float | None
    ratio: float | None
    low: float | None
    high: float | None
    status: Status
    distrust: str


def changes(before: Sequence[Fact], after: Sequence[Fact]) -> tuple[Change, ...]:
    """Return every figure of either side, in the order of the first that has it."""
    left = {fact.name: fact for fact in before}
    right = {fact.name: fact for fact in after}
    return tuple(_change(left, right, name) for name in dict.fromkeys([*left, *right]))


def _change(left: Mapping[str, Fact], right: Mapping[str, Fact], name: str) -> Change:
    a, b = left.get(name), right.get(name)
    fact = b or a
    assert fact is not None  # noqa: S101 - the name comes from one of them
    ratio, low, high = _ratio(a, b)
    return Change(
        name=name,
        unit=fact.unit,
        better=fact.better,
        before=None if a is None else a.value,
        after=None if b is None else b.value,
        ratio=ratio,
        low=low,
        high=high,
        status=_status(a, b, low, high),
        distrust=next((one.distrust for one in (a, b) if one is not None and one.distrust), ""),
    )


def _ratio(a: Fact | None, b: Fact | None) -> tuple[float, float, float] | tuple[None, None, None]:
    if a is None or b is None or a.value == 0 or min((1.0, *a.samples)) <= 0:
        return None, None, None
    ratio = b.value / a.value
    if len(a.samples) < 2 or len(b.samples) < 2:
        return ratio, ratio, ratio
    rng = np.random.default_rng(0)
    medians = [
        np.median(rng.choice(np.asarray(one.samples), size=(_RESAMPLES, len(one.samples))), axis=1)
        for one in (a, b)
    ]
    low, high = np.percentile(
        medians[1] / np.where(medians[0] == 0, np.nan, medians[0]), (2.5, 97.5)
    )
    return ratio, float(low), float(high)


def _status(a: Fact | None, b: Fact | None, low: float | None, high: float | None) -> Status:
    if a is None or b is None:
        return "removed" if b is None else "added"
    if low is None or high is None:
        return "same" if a.value == b.value else "differs"
    if max(abs(low - 1.0), abs(high - 1.0)) <= NEGLIGIBLE:
        return "same"
    if low <= 1.0 <= high:
        return "unsure"
    if b.better == "neither":
        return "differs"
    return "better" if (low > 1.0) == (b.better == "higher") else "worse"
