"""Geometry of the page's pictures: what the template draws, computed where it can be tested."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import get_args

from mobilepack.contract.bench import Bench, BenchTest
from mobilepack.contract.parity import Measured, Parity, ParityRow, Rung

LADDER: tuple[Rung, ...] = get_args(Rung)
LOST = "rms_over_std"
"""The waterfall's length: a distance, so that two steps are at most as far as one after another."""

STRIP_WIDTH, STRIP_HEIGHT = 200.0, 24.0
DOTS = 200
"""Samples that a strip draws at most; one per unit of its width."""


@dataclass(frozen=True, slots=True)
class Step:
    """A rung of the waterfall; lengths are percent of the whole picture.

    Attributes:
        against: Rung whose end this one starts at, empty for a rung that did not run.
        value: Largest `rms_over_std` of its rows, None without any.
        kl_max: Largest of its rows, nats; None without any.
        top1: Smallest `top1_agreement` of its rows; None without any.
        limit: Where the row with `value` would break its tolerance; None without tolerance.
        status: `failed` if any row failed, else `passed`, `reported` or `not run`.
        reason: Why the rung did not run.
    """

    rung: str
    against: str
    value: float | None
    kl_max: float | None
    top1: float | None
    start: float
    width: float
    limit: float | None
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Group:
    """All rows that hold one rung against one other; lengths are of `LOST`."""

    rung: Rung
    against: Rung
    rows: tuple[ParityRow, ...]
    start: float
    worst: Measured | None

    @property
    def end(self) -> float:
        """Where the next rung starts."""
        return self.start + _finite(self.worst.value if self.worst else 0.0)

    @property
    def limit(self) -> float | None:
        """Where the tolerance ends."""
        if self.worst is None or self.worst.limit is None:
            return None
        return self.start + self.worst.limit


def waterfall(parity: Parity) -> tuple[Step, ...]:
    """Return the ladder's steps from top to bottom: each starts where the rung above it ended."""
    groups = _groups(parity)
    ends = [group.end for group in groups]
    limits = [group.limit for group in groups if group.limit is not None]
    scale = max((x for x in (*ends, *limits) if math.isfinite(x)), default=0.0)
    placed = [(LADDER.index(group.rung), _step(group, scale)) for group in groups]
    # One row stands for a rung that nobody ran, however many there are.
    missing = {row.rung: row for row in reversed(parity.rows) if row.against is None}
    placed += [(LADDER.index(rung), _missing(row)) for rung, row in missing.items()]
    return tuple(step for _, step in sorted(placed, key=lambda pair: pair[0]))


def _missing(row: ParityRow) -> Step:
    return Step(row.rung, "", None, None, None, 0.0, 0.0, None, row.status, row.reason)


def _groups(parity: Parity) -> list[_Group]:
    pairs: dict[tuple[Rung, Rung], list[ParityRow]] = {}
    for row in parity.rows:
        if row.against is not None and row.against != row.rung:
            pairs.setdefault((row.rung, row.against), []).append(row)
    ends: dict[Rung, float] = {}
    groups = []
    # The nearest rung above comes first and decides where the next one starts.
    for (rung, above), rows in sorted(pairs.items(), key=_place):
        found = [one for row in rows for one in row.metrics if one.name == LOST]
        worst = max(found, key=lambda one: one.value, default=None)
        group = _Group(rung, above, tuple(rows), ends.get(above, 0.0), worst)
        ends.setdefault(rung, group.end)
        groups.append(group)
    return groups


def _place(pair: tuple[tuple[Rung, Rung], list[ParityRow]]) -> tuple[int, int]:
    (rung, above), _ = pair
    return LADDER.index(rung), -LADDER.index(above)


def _step(group: _Group, scale: float) -> Step:
    statuses = {row.status for row in group.rows}
    order = ("failed", "passed", "reported", "not run")
    value = group.worst.value if group.worst else None
    length = 0.0 if value is None else value
    limit = group.limit
    return Step(
        group.rung,
        group.against,
        value,
        max(_values(group.rows, "kl_max"), default=None),
        min(_values(group.rows, "top1_agreement"), default=None),
        _percent(group.start, scale),
        _percent(length, scale) if math.isfinite(length) else 100 - _percent(group.start, scale),
        None if limit is None or not math.isfinite(limit) else _percent(limit, scale),
        next(status for status in order if status in statuses),
    )


def _values(rows: Iterable[ParityRow], name: str) -> Iterator[float]:
    return (one.value for row in rows for one in row.metrics if one.name == name)


@dataclass(frozen=True, slots=True)
class Strip:
    """Samples on a line, in the units of a picture of 200 by 24; the earliest are at the top.

    Attributes:
        dots: At most `DOTS` of the samples, evenly chosen in the order taken.
        box: First quartile, median, third quartile.
    """

    label: str
    samples: int
    least: float
    median: float
    most: float
    dots: tuple[tuple[float, float], ...]
    box: tuple[float, float, float]


def strips(test: BenchTest) -> tuple[Strip, ...]:
    """Return the latency samples of a test, milliseconds: of the prompt and of each token."""
    prompts = [ns / 1e6 for ns in test.prefill_ns] if test.n_prompt else []
    steps = [ns / 1e6 for row in test.decode_ns for ns in row]
    pairs = (("TTFT ms", prompts), ("per token ms", steps))
    return tuple(_strip(label, values) for label, values in pairs if values)


def _strip(label: str, values: Sequence[float]) -> Strip:
    least, most = min(values), max(values)
    first, median, third = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (
        values[0],
    ) * 3  # fmt: skip

    def x(value: float) -> float:
        share = (value - least) / (most - least) if most > least else 0.5
        return round(4 + share * (STRIP_WIDTH - 8), 1)

    stride = math.ceil(len(values) / DOTS)
    chosen = range(0, len(values), stride)
    rows = max(len(values) - 1, 1)
    dots = ((x(values[i]), round(3 + i / rows * (STRIP_HEIGHT - 6), 1)) for i in chosen)
    box = (x(first), x(median), x(third))
    return Strip(label, len(values), least, median, most, tuple(dots), box)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a whole, with its bytes and its percent."""

    label: str
    count: int
    width: float


def split(parts: Iterable[tuple[str, int]]) -> tuple[Part, ...]:
    """Return labelled bytes with their shares."""
    listed = tuple(parts)
    whole = sum(count for _, count in listed)
    return tuple(Part(label, count, _percent(count, whole)) for label, count in listed)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a run; `after` is None for what does not change."""

    name: str
    before: str
    after: str | None


def conditions(bench: Bench) -> tuple[Condition, ...]:
    """Return what a timing was taken under; `<name>_before` and `<name>_after` share a row."""
    found = bench.environment.conditions
    rows: dict[str, Condition] = {}
    for key, value in found.items():
        name, _, when = key.rpartition("_")
        if name and when in ("before", "after"):
            before, after = found.get(f"{name}_before", ""), found.get(f"{name}_after", "")
            rows[f"{name}_before"] = Condition(name.replace("_", " "), before, after)
        else:
            rows[key] = Condition(key.replace("_", " "), value, None)
    return tuple(rows.values())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _percent(value: float, whole: float) -> float:
    return round(min(max(value / whole, 0.0), 1.0) * 100, 2) if whole else 0.0
