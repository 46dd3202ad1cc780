"""The app's harness, compiled and run on Linux: same plan, same result as Python, C++, Kotlin."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.contract.run_result import RunResult
from mobilepack.models.static_session import StaticSession, static_methods
from mobilepack.testing.swift import Swift
from tests.harness.core_contract import CONTRACT, PLAN, CoreContract, Run
from tests.ios_demo.conftest import CORE, provisioned, said, stand_in, tools
from tests.provision import CACHE

__all__ = ["provisioned", "stand_in", "tools"]


def test_its_own_golden_files_are_the_contract_s() -> None:
    for name in ("run_plan.json", "run_result.json"):
        copy = CORE / "Tests/HarnessCoreTests/Golden" / name
        assert copy.read_bytes() == (CONTRACT / name).read_bytes(), f"cp {CONTRACT / name} {copy}"


@pytest.fixture
def obey(stand_in: tuple[str, ...], tmp_path: Path) -> Run:
    """Return a function that carries out a plan's bytes; its result is `result.json`."""

    def call(plan: bytes, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "plan.json").write_bytes(plan)
        return said(
            (*stand_in, "--toy", tmp_path / "plan.json", tmp_path / "result.json", *options)
        )

    return call


@pytest.mark.slow
class TestSwift(CoreContract):
    """The Linux build."""

    conditions = frozenset({"thermal_state_before", "thermal_state_after", "peak_memory"})
    of_bad_literals = "the plan is no"


@pytest.mark.slow
def test_its_unit_tests_pass(tools: Swift) -> None:
    """The build is kept beside the tool chain: a second run compiles what changed."""
    scratch = CACHE / "swift-tests"
    scratch.mkdir(parents=True, exist_ok=True)
    words = ("--package-path", str(CORE), "--scratch-path", str(scratch), "--disable-sandbox")
    done = tools.tool("swift-test", *words, folders=(CORE, scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Executed 8 tests, with 0 failures" in done.stdout
    assert "warning:" not in done.stdout


@pytest.mark.slow
def test_placement_and_a_second_load_come_back(obey: Run, tmp_path: Path) -> None:
    assert obey(PLAN, "keeps").returncode == 0
    found = RunResult.read(tmp_path / "result.json")
    assert (found.load_ns, found.cached_load_ns) == (1000, 1000)
    assert found.placement is not None
    (function,) = found.placement.functions
    assert [one.preferred for one in function.operators] == ["ane", "cpu"]
    assert found.placement.ane_share() == 0.5  # one of two: not every cost is known


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000])
def test_checksums_are_right_at_every_block_s_edge(obey: Run, tmp_path: Path, length: int) -> None:
    """SHA-256 pads to blocks of 64 bytes with 9 at least: blanks behind a plan move its end."""
    plan = PLAN.rstrip() + b" " * ((length - len(PLAN.rstrip())) % 64 + 64)
    assert obey(plan).returncode == 0
    assert RunResult.read(tmp_path / "result.json").plan_sha256 == hashlib.sha256(plan).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("position", "ids"), [(0, [5]), (7, [5]), (12, [5]), (0, [5, 6, 7]), (3, [1, 2]), (9, [4] * 4)]
)
def test_a_static_program_is_given_what_python_gives_it(
    stand_in: tuple[str, ...], tmp_path: Path, position: int, ids: list[int]
) -> None:
    """Padding in front, positions, full and sliding masks: StaticSession's, number by number."""
    form = StaticForm(past=12, prefill_tokens=4, mask_value=-4e4, windows=(0, 5))
    session = StaticSession(form, static_methods_of(form), lambda name, inputs: [])
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"static": form.model_dump(), "other": 1}))
    done = said((*stand_in, "--inputs", manifest, position, *ids))
    assert done.returncode == 0, done.stderr
    method, *lists = done.stdout.splitlines()
    width = 1 if len(ids) == 1 else form.prefill_tokens
    assert method == ("decode" if width == 1 else "prefill")
    expected = session.inputs(np.array(ids), position, width)
    assert len(lists) == len(expected) == 4
    for ours, theirs in zip(lists, expected, strict=True):
        assert [float(word) for word in ours.split()] == theirs.ravel().tolist()


def static_methods_of(form: StaticForm) -> tuple[Method, ...]:
    """Return the methods of a program without layers: a mask for each window, and no cache."""
    masks = [f"mask_{window}" if window else "mask" for window in form.windows]
    shapes = {
        name: (
            *[((1, width), "int32")] * 2,
            *[((1, 1, width, form.past + width), "float32")] * len(masks),
        )
        for name, width in (("decode", 1), ("prefill", form.prefill_tokens))
    }
    logits = {name: [((1, 61), "float32")] for name in shapes}
    return static_methods(["tokens", "positions", *masks], shapes, logits)


@pytest.mark.slow
def test_more_tokens_than_a_static_program_takes_are_refused(
    stand_in: tuple[str, ...], tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.json"
    form = StaticForm(past=12, prefill_tokens=4, mask_value=-4e4, windows=(0,))
    manifest.write_text(json.dumps({"static": form.model_dump()}))
    assert said((*stand_in, "--inputs", manifest, 0, *[1] * 5)).returncode == 1
    assert said((*stand_in, "--inputs", manifest, 13, 1)).returncode == 1
    manifest.write_text('{"static": null}')
    assert said((*stand_in, "--inputs", manifest, 0, 1)).returncode == 1


def test_its_sources_name_no_apple_framework() -> None:
    """Foundation and Dispatch are on Linux too; anything else would end the checks there."""
    found = {
        line.split()[-1]
        for path in (CORE / "Sources/HarnessCore").glob("*.swift")
        for line in path.read_text().splitlines()
        if line.startswith("import ")
    }
    assert found <= {"Foundation", "Dispatch"}, os.fspath(CORE)
