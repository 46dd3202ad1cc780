from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.compare import compare
from mobilepack.commands.figures import facts
from mobilepack.commands.verify import verify
from mobilepack.contract.gate import Gate, Rule
from mobilepack.contract.run_plan import RunPlan, Time
from mobilepack.contract.run_result import RunResult, Timing
from mobilepack.errors import CheckFailedError, ExitCode
from mobilepack.report.gates import write_junit, write_sarif
from mobilepack.testing import FakeHarness
from tests.packages import toy_package

Run = Callable[..., Any]
FEW = BenchOptions(prompt_tokens=(4,), gen_tokens=(3,), warmups=0, repetitions=5)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    package = toy_package(tmp_path / "p")
    verify(package, harness=FakeHarness())
    bench(package, FEW, harness=FakeHarness())
    return package


def test_a_package_equals_itself(measured: Path) -> None:
    found = compare(measured, measured)
    exact = [one for one in found.changes if one.low == one.high]
    assert {one.status for one in exact} == {"same"}
    names = {one.name for one in found.changes}
    assert {"size/program", "parity/fake/passed", "bench/fake/pp4/ttft_ms"} <= names


def test_times_of_this_machine_decide_nothing(measured: Path) -> None:
    timed = [one for one in facts(measured) if one.unit in ("ms", "tok/s")]
    assert timed
    assert all(one.distrust.startswith("NOT REPRESENTATIVE") for one in timed)


def test_a_broken_gate_names_the_rows(measured: Path, tmp_path: Path) -> None:
    gate = Gate(
        rule=(
            Rule(metric="size/*", max=1.0),
            Rule(metric="parity/*/passed", min=1.0),
            Rule(metric="bench/*/decode_token_ms", max=0.0),
        )
    )
    found = compare(measured, measured, gate)
    assert not found.passed
    with pytest.raises(CheckFailedError, match="size/package"):
        found.raise_if_failed()
    outcomes = {one.metric: one.outcome for one in found.judged}
    assert outcomes["parity/fake/passed"] == "passed"
    assert outcomes["bench/fake/tg3/decode_token_ms"] == "not judged"
    write_junit(tmp_path / "gate.xml", found.judged, "suite")
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()  # noqa: S314 - our own file
    assert int(suite.get("failures", "0")) == len(suite.findall("testcase/failure")) == 2
    assert len(suite.findall("testcase/skipped")) == int(suite.get("skipped", "0")) == 1
    write_sarif(tmp_path / "gate.sarif", found.judged, Path("ci/gate.toml"))
    results = json.loads((tmp_path / "gate.sarif").read_text())["runs"][0]["results"]
    assert [one["level"] for one in results] == ["error", "error"]


@pytest.mark.parametrize(("more", "outcome"), [(1.01, "failed"), (1.004, "passed")])
def test_one_percent_of_instructions_breaks_a_gate_at_half_a_percent(
    tmp_path: Path, more: float, outcome: str
) -> None:
    """Counts do not scatter (the virtual phone's are the same to 0.1 %), so one run decides."""
    was = counted(tmp_path / "was", 45_090_004)
    now = counted(tmp_path / "now", round(45_090_004 * more))
    gate = Gate(rule=(Rule(metric="bench/*/instructions_per_token", max_increase="0.5%"),))
    judged = compare(was, now, gate).judged
    assert [one.outcome for one in judged] == [outcome, outcome]


def counted(folder: Path, each: int) -> Path:
    """Return a package that was timed where every token takes so many instructions."""

    class Counting(FakeHarness):
        def run(self, package: Path, plan: RunPlan, **others: Any) -> RunResult:
            result = super().run(package, plan, **others)
            timings = tuple(_with_counts(one, plan, each) for one in result.timings)
            return result.model_copy(update={"timings": timings})

    package = toy_package(folder)
    bench(package, FEW, harness=Counting())
    return package


def _with_counts(timing: Timing, plan: RunPlan, each: int) -> Timing:
    item = next(item for item in plan.items if item.name == timing.item)
    assert isinstance(item, Time)
    rounds = item.repetitions
    return timing.model_copy(
        update={
            "prefill_instructions": (each * item.n_prompt,) * rounds if item.n_prompt else (),
            "decode_instructions": ((each,) * item.n_gen,) * rounds,
        }
    )


def test_the_command_line(run: Run, measured: Path, tmp_path: Path) -> None:
    same = run("compare", str(measured), str(measured))
    assert same.code == 0
    assert "figures are the same" in same.out
    gate = tmp_path / "gate.toml"
    gate.write_text('[[rule]]\nmetric = "size/package"\nmax = 10\n')
    junit = tmp_path / "new" / "gate.xml"
    arguments = ("compare", str(measured), str(measured), "--gate", str(gate))
    broken = run(*arguments, "--junit", str(junit))
    assert broken.code == ExitCode.CHECK_FAILED
    assert "error[gate-failed]" in broken.err
    assert junit.is_file()
    document = run(*arguments, "--json").document
    assert not document["passed"]
    assert document["judged"][0]["outcome"] == "failed"
