"""bench --against: two packages timed in turns, so that what drifts drifts for both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.commands.bench import Begun, BenchOptions, BenchResult, begin, finish
from mobilepack.commands.figures import facts
from mobilepack.contract.run_plan import RunPlan, Time
from mobilepack.contract.run_result import RunResult, Timing
from mobilepack.errors import UsageError
from mobilepack.harness.base import Harness, OnProgress, Progress, silent
from mobilepack.harness.host import HostHarness
from mobilepack.metrics.changes import Change, changes


@dataclass(frozen=True, slots=True)
class Alternated:
    """Two packages timed in turns; each has its own results in its own runs folder.

    Attributes:
        changes: From the baseline to the package, with the interval of each ratio.
    """

    baseline: BenchResult
    result: BenchResult
    changes: tuple[Change, ...]


def bench_against(
    path: Path,
    baseline: Path,
    options: BenchOptions = BenchOptions(),  # noqa: B008 - frozen
    *,
    harness: Harness | None = None,
    on_progress: OnProgress = silent,
) -> Alternated:
    """Time a package and a baseline in turns on one device.

    Every round loads a package anew, warms up and takes one sample of each test; rounds go A B,
    B A, A B … so that a clock that falls or a neighbour who comes weighs on both alike.

    Raises:
        MissingError: There is no package.
        UsageError: A package is damaged, no test fits it, or both are one and the same.
        RunFailedError: A program could not be run to its end.
    """
    if path.resolve() == baseline.resolve():
        raise UsageError(
            "same-package",
            f"cannot time {path} against itself",
            why="both are the same folder",
            next="copy it elsewhere to measure the noise of the comparison",
        )
    runner = harness or HostHarness()
    both = [begin(place, options, runner) for place in (baseline, path)]
    taken: list[list[RunResult]] = [[], []]
    for number in range(options.repetitions):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            name = "package" if which else "baseline"
            step = len(taken[0]) + len(taken[1])
            on_progress(Progress(f"round {number + 1}, {name}", step, 2 * options.repetitions))
            taken[which].append(both[which].run(_one_round(both[which].plan)))
    on_progress(Progress("", 2 * options.repetitions, 2 * options.repetitions))
    results = [finish(begun, _joined(begun, runs)) for begun, runs in zip(both, taken, strict=True)]
    before, after = (tuple(facts(result.folder)) for result in results)
    return Alternated(results[0], results[1], changes(before, after))


def _one_round(plan: RunPlan) -> RunPlan:
    items = tuple(
        item.model_copy(update={"repetitions": 1}) if isinstance(item, Time) else item
        for item in plan.items
    )
    return plan.model_copy(update={"items": items})


def _joined(begun: Begun, runs: list[RunResult]) -> RunResult:
    """Return the rounds as one run; conditions are those before the first and after the last."""
    first, last = runs[0], runs[-1]
    timings = tuple(_timing(test.name, runs) for test in begun.tests)
    after = {k: v for k, v in last.environment.conditions.items() if k.endswith("_after")}
    environment = first.environment.model_copy(
        update={"conditions": first.environment.conditions | after}
    )
    return first.model_copy(update={"timings": timings, "environment": environment})


def _timing(name: str, runs: list[RunResult]) -> Timing:
    found = [timing for run in runs for timing in run.timings if timing.item == name]
    return Timing(
        item=name,
        prefill_ns=tuple(ns for one in found for ns in one.prefill_ns),
        decode_ns=tuple(steps for one in found for steps in one.decode_ns),
        prefill_instructions=tuple(n for one in found for n in one.prefill_instructions),
        decode_instructions=tuple(n for one in found for n in one.decode_instructions),
    )
