"""`mobilepack mil` and `mobilepack lint`, as people type them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilepack.cli import lint as lint_verb
from mobilepack.mil.lint.run import LEVELS
from tests.mil.packages import Writer, linear_package

Run = Callable[..., Any]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return linear_package(tmp_path / "m.mlpackage")[0]


def _placement(path: Path, **units: str) -> Path:
    operators = [
        {"operator": kind, "output": name, "preferred": units[name], "cost": cost}
        for kind, name, cost in (("linear", "y", 0.9), ("relu", "z", 0.1))
    ]
    document = {
        "schema": "mobilepack/placement/1",
        "device": "iPhone16,1",
        "system": "iOS 18.5",
        "functions": [{"name": "main", "operators": operators}],
    }
    path.write_text(json.dumps(document))
    return path


def test_a_program_is_shown(run: Run, package: Path) -> None:
    ran = run("mil", "show", package, "--operations")
    assert ran.code == 0
    assert "input       x: fp16[1, 6]" in ran.out
    assert "operators   linear ×1, relu ×1" in ran.out
    assert "z: fp16[1, 8] = relu(x=y)" in ran.out
    (program,) = json.loads(run("mil", "show", package, "--json").out)["programs"]
    assert program["functions"][0]["operators"] == {"linear": 1, "relu": 1}


def test_a_program_runs_with_given_inputs_and_writes_its_outputs(
    run: Run, package: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", x=np.full((1, 6), 0.5, "f4"))
    ran = run(
        "mil", "run", package, "--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "out.npz",
        "--json",
    )  # fmt: skip
    assert ran.code == 0
    (output,) = json.loads(ran.out)["outputs"]
    z = np.load(tmp_path / "out.npz")["z"]
    assert output["shape"] == [1, 8]
    assert output["largest"] == z.max()


def test_random_inputs_are_the_same_for_the_same_seed(run: Run, package: Path) -> None:
    first, again = (run("mil", "run", package, "--seed", 3).out for _ in range(2))
    assert first == again != run("mil", "run", package, "--seed", 4).out


def test_a_trace_lists_every_value(run: Run, package: Path) -> None:
    ran = run("mil", "run", package, "--trace", "--json")
    assert [row["name"] for row in json.loads(ran.out)["trace"]] == ["y", "z"]
    assert "linear" in run("mil", "run", package, "--trace").out


def test_a_program_does_not_differ_from_itself(run: Run, package: Path) -> None:
    ran = run("mil", "diff", package, package, "--tolerance", 0)
    assert ran.code == 0
    assert "no value differs by more than 0" in ran.out


def test_the_first_value_that_differs_is_named(run: Run, package: Path, tmp_path: Path) -> None:
    other, _ = linear_package(tmp_path / "other.mlpackage", seed=1)
    ran = run("mil", "diff", other, package, "--json")
    assert ran.code == 3
    document = json.loads(ran.out)
    assert document["intermediate"]["first"]["name"] == "y"
    assert document["passed"] is False


def test_rounding_costs_no_more_than_fp16_can(run: Run, package: Path) -> None:
    assert run("mil", "diff", package, "--tolerance", 2**-10).code == 0
    assert run("mil", "diff", package, "--tolerance", 0).code == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["ghost.mlpackage"], "no-such-package"),
        (["{package}", "--function", "decode"], "unknown-function"),
        (["{package}", "--inputs", "ghost.npz"], "invalid-inputs"),
    ],
)
def test_what_is_wrong_is_one_error(words: list[str], code: str, run: Run, package: Path) -> None:
    ran = run("mil", "run", *[word.format(package=package) for word in words])
    assert ran.code in (2, 5)
    assert f"error[{code}]" in ran.err
    assert "Traceback" not in ran.err


def test_an_input_of_open_size_needs_a_file(run: Run, tmp_path: Path) -> None:
    writer = Writer()
    x = writer.input("x", ("fp16", (None,)))
    writer.returns(writer.add("relu", ("y", ("fp16", (None,))), x=x))
    path = writer.save(tmp_path / "open.mlpackage")
    assert "--inputs" in run("mil", "run", path).err
    np.savez(tmp_path / "in.npz", x=np.ones(3, "f4"))
    assert run("mil", "run", path, "--inputs", tmp_path / "in.npz").code == 0


def test_lint_says_what_why_and_what_to_do(run: Run, package: Path) -> None:
    ran = run("lint", package)
    assert ran.code == 0
    assert "ANE007 linear-instead-of-conv (warning), 1 times" in ran.out
    assert "main: linear y: weight fp16[8, 6]" in ran.out
    assert "remedy  write the layer as a 1x1 convolution" in ran.out
    assert "a lint, not a placement" in ran.out


def test_lint_fails_on_what_it_is_asked_to(run: Run, package: Path) -> None:
    assert run("lint", package, "--fail-on", "error").code == 0
    ran = run("lint", package, "--fail-on", "warning", "--json")
    assert ran.code == 3
    document = json.loads(ran.out)
    assert document["verdict"]["gates"][0]["passed"] is False
    assert document["counts"]["warning"] >= 1


def test_findings_are_written_as_sarif(run: Run, package: Path, tmp_path: Path) -> None:
    assert run("lint", package, "--sarif", tmp_path / "lint.sarif").code == 0
    log = json.loads((tmp_path / "lint.sarif").read_text())
    (part,) = log["runs"]
    rules, results = part["tool"]["driver"]["rules"], part["results"]
    assert log["version"] == "2.1.0"
    assert results
    for result in results:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]


def test_a_placement_is_merged_and_gates(run: Run, package: Path, tmp_path: Path) -> None:
    placement = _placement(tmp_path / "p.json", y="cpu", z="ane")
    ran = run("lint", package, "--placement", placement, "--min-ane-share", 0.1)
    assert ran.code == 0
    assert "iPhone16,1, iOS 18.5: 10.0% on the Neural Engine" in ran.out
    assert "linear on cpu ×1" in ran.out
    assert "rules point at 1 of these 1 operators" in ran.out
    assert run("lint", package, "--placement", placement, "--min-ane-share", 0.2).code == 3


def test_a_share_without_a_placement_is_refused(run: Run, package: Path) -> None:
    ran = run("lint", package, "--min-ane-share", 0.5)
    assert ran.code == 2
    assert "error[no-placement]" in ran.err


def test_a_placement_of_another_program_is_refused(run: Run, package: Path, tmp_path: Path) -> None:
    placement = _placement(tmp_path / "p.json", y="ane", z="ane")
    placement.write_text(placement.read_text().replace('"linear"', '"conv"'))
    assert "error[other-placement]" in run("lint", package, "--placement", placement).err


def test_the_levels_of_the_help_page_are_the_rules_own() -> None:
    assert lint_verb.LEVELS == LEVELS
