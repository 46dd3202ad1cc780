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
