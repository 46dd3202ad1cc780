"""What a device says of a Core ML package, beside what lint had foreseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.package import Package, open_package
from mobilepack.contract.placement import FunctionPlacement, OperatorPlacement, Placement
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.report.devices import placed_on
from mobilepack.report.findings import findings
from mobilepack.report.html import render_html
from mobilepack.report.runs import read_runs
from mobilepack.testing import FakeHarness
from tests.mil.packages import linear_package
from tests.packages import toy_package

PLAN = RunPlan(
    max_seq_len=8, prefill_chunk=4, items=(Teacher(name="t", token_ids=(1, 2), calls=(2,)),)
)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Return a package that claims to be of Core ML; its program has two operators."""
    opened = open_package(toy_package(tmp_path / "toy"))
    opened.program.unlink()
    linear_package(opened.program.with_suffix(".mlpackage"))[0].rename(opened.program)
    plan = opened.manifest.plan.model_copy(update={"backend": "coreml"})
    return Package(opened.root, opened.manifest.model_copy(update={"plan": plan}))


def write_run(package: Package, device: str, units: dict[str, str], operator: str = "relu") -> Path:
    """Write the result of a run that brought a placement back."""
    folder = package.root / "runs" / device / "2026-11-21T05-08-50Z"
    folder.mkdir(parents=True)
    result = FakeHarness().run(package.root, PLAN, log=folder / "log.txt")
    rows = tuple(
        OperatorPlacement(operator=kind, output=name, preferred=units[name], cost=cost)
        for kind, name, cost in (("linear", "y", 0.75), (operator, "z", 0.25))
    )
    placement = Placement(
        device="iPhone16,1",
        system="iOS 18.5",
        functions=(FunctionPlacement(name="main", operators=rows),),
    )
    more = {"placement": placement, "load_ns": 1_500_000_000, "cached_load_ns": 40_000_000}
    path = folder / "run_result.json"
    path.write_text(result.model_copy(update=more).to_json())
    return path


def test_placement_stands_beside_the_prediction(package: Package) -> None:
    """Lint points at `y` (its weights' last axis, its width) and not at `z`."""
    write_run(package, "iphone", {"y": "cpu", "z": "ane"})
    (row,), (found,) = placed_on(package)
    assert row.view.elsewhere == {"linear on cpu": 1}
    assert row.view.explained + row.view.missed == 1
    assert row.loads == "first load 1,500 ms, the next 40 ms"
    assert found.status == "measured"
    assert "25.0% on the Neural Engine (1 of 2 operators)" in found.text
    page = render_html(package.manifest, read_runs(package.root, package.manifest), (), "1", (row,))
    for said in ("iOS 18.5", "25.0 % on the Neural Engine", "linear on cpu", "1,500 ms"):
        assert said in page


def test_what_lint_points_at_and_the_device_takes_is_counted(package: Package) -> None:
    write_run(package, "iphone", {"y": "ane", "z": "ane"})
    (row,), _ = placed_on(package)
    elsewhere = write_run(package, "other", {"y": "cpu", "z": "cpu"})
    rows, _ = placed_on(package)
    assert elsewhere.is_file()
    assert (row.view.ane_share, row.view.missed) == (1.0, 0)
    assert sorted(one.view.explained for one in rows) == [0, row.view.unfounded]


def test_a_placement_of_another_program_is_said(package: Package) -> None:
    write_run(package, "iphone", {"y": "ane", "z": "ane"}, operator="softmax")
    rows, found = placed_on(package)
    assert rows == ()
    assert [one.status for one in found] == ["unreadable", "not run"]
    assert "no softmax 'z'" in found[0].text


def test_a_package_of_another_backend_has_nothing_to_say(tmp_path: Path) -> None:
    assert placed_on(open_package(toy_package(tmp_path / "toy"))) == ((), ())


def test_nobody_asked_is_a_finding(package: Package) -> None:
    _, (found,) = placed_on(package)
    assert found.status == "not run"
    assert findings(package.manifest, read_runs(package.root, package.manifest))


def test_lint_takes_a_run_s_result(
    package: Package, run: Callable[..., Any], tmp_path: Path
) -> None:
    result = write_run(package, "iphone", {"y": "cpu", "z": "ane"})
    done = run("lint", package.program, "--placement", result, "--json")
    assert done.document["placement"]["elsewhere"] == {"linear on cpu": 1}
    silent = tmp_path / "silent.json"
    document = json.loads(result.read_text())
    silent.write_text(json.dumps(document | {"placement": None}))
    done = run("lint", package.program, "--placement", silent)
    assert "error[no-placement]" in done.err
