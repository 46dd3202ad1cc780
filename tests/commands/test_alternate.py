"""Two packages are timed in turns, and their ratio comes with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.alternate import bench_against
from mobilepack.commands.bench import BenchOptions
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import UsageError
from mobilepack.testing import FakeHarness
from tests.packages import toy_package

OPTIONS = BenchOptions(prompt_tokens=(8,), gen_tokens=(4,), repetitions=6)


class Drifting(FakeHarness):
    """Gets slower with every run, as a phone does that warms; one package needs twice as long."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self.slow = slow
        self.order: list[str] = []

    def run(self, package: Path, plan: RunPlan, **options: Any) -> RunResult:
        self.order.append(package.name)
        factor = (2 if package.name == self.slow else 1) * (100 + len(self.order))
        found = super().run(package, plan, **options)

        def slower(times: Sequence[int]) -> tuple[int, ...]:
            return tuple(ns * factor for ns in times)

        timings = tuple(
            one.model_copy(
                update={
                    "prefill_ns": slower(one.prefill_ns),
                    "decode_ns": tuple(slower(steps) for steps in one.decode_ns),
                }
            )
            for one in found.timings
        )
        return found.model_copy(update={"timings": timings})


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return toy_package(tmp_path / "old"), toy_package(tmp_path / "new")


def test_rounds_go_in_turns_so_that_a_drift_cancels(two: tuple[Path, Path]) -> None:
    old, new = two
    harness = Drifting(slow="new")
    found = bench_against(new, old, OPTIONS, harness=harness)
    assert harness.order[:8] == ["old", "new", "new", "old", "old", "new", "new", "old"]
    by_name = {change.name: change for change in found.changes}
    ttft = by_name["bench/fake/pp8/ttft_ms"]
    assert ttft.ratio == pytest.approx(2.0, rel=0.01)  # the drift alone is 12 % over the rounds
    assert ttft.low is not None
    assert ttft.high is not None
    assert ttft.low <= 2.0 <= ttft.high


def test_each_package_keeps_all_its_samples(two: tuple[Path, Path]) -> None:
    old, new = two
    found = bench_against(new, old, OPTIONS, harness=FakeHarness())
    for result, package in ((found.baseline, old), (found.result, new)):
        assert result.folder.is_relative_to(package)
        pp8, tg4 = result.bench.tests
        assert len(pp8.prefill_ns) == 6
        assert [len(steps) for steps in tg4.decode_ns] == [4] * 6


def test_a_package_is_not_timed_against_itself(two: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="against itself"):
        bench_against(two[0], two[0], OPTIONS, harness=FakeHarness())
