"""The app's harness, compiled and run on Linux: same plan, same result as Python, C++, Kotlin."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import UsageError
from mobilepack.models.static_session import StaticSession, static_methods
from mobilepack.testing import FakeHarness
from mobilepack.testing.swift import Swift
from tests.ios_demo.conftest import CORE, provisioned, said, stand_in, tools
from tests.provision import CACHE

__all__ = ["provisioned", "stand_in", "tools"]
CONTRACT = Path(__file__).parents[1] / "data" / "contract"
PLAN = (CONTRACT / "run_plan.json").read_bytes()
Run = Callable[..., subprocess.CompletedProcess[str]]


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
def test_it_brings_back_the_golden_result_to_the_last_digit(obey: Run, tmp_path: Path) -> None:
    done = obey(PLAN)
    assert done.returncode == 0, done.stdout
    found = json.loads(RunResult.read(tmp_path / "result.json").to_json())
    expected = json.loads((CONTRACT / "run_result.json").read_text())
    conditions = found["environment"].pop("conditions")
    assert expected["environment"].pop("conditions") == {}
    assert found == expected
    assert found["plan_sha256"] == hashlib.sha256(PLAN).hexdigest()
    assert set(conditions) == {"thermal_state_before", "thermal_state_after", "peak_memory"}
    assert done.stdout.splitlines()[0] == "0/5 prefill and decode"
    assert done.stdout.splitlines()[-1] == "5/5 "


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
def test_every_logit_of_a_long_item_is_the_one_of_python(obey: Run, tmp_path: Path) -> None:
    """Ties in the top and float32 at 9 digits, over 200 rows and the whole vocabulary."""
    ids = tuple(n * n % 61 for n in range(240))
    long = Teacher(name='long "é😀\\', token_ids=ids, calls=(40, *(1,) * 199))
    plan = RunPlan(
        max_seq_len=256, prefill_chunk=40, sample_ids=tuple(range(61)), top_k=99, items=(long,)
    )
    assert obey(plan.to_json().encode()).returncode == 0
    found = RunResult.read(tmp_path / "result.json")
    expected = FakeHarness().run(tmp_path, plan, log=tmp_path / "log.txt")
    assert len(found.rows) == 200
    # The sum of 61 exponentials may round to a neighbouring float32 (2^-24 of 17); the rest is
    # exact.
    for ours, theirs in zip(found.rows, expected.rows, strict=True):
        assert ours.logsumexp == pytest.approx(theirs.logsumexp, rel=2**-23)
        assert ours.model_copy(update={"logsumexp": theirs.logsumexp}) == theirs


@pytest.mark.slow
def test_logits_that_are_no_numbers_are_counted(obey: Run, tmp_path: Path) -> None:
    assert obey(PLAN, "nan").returncode == 0
    for row in RunResult.read(tmp_path / "result.json").rows:
        assert (row.non_finite, row.sampled, row.top_ids, row.next_logit) == (2, (), (), None)


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


def changed(**items: Any) -> dict[str, Any]:
    """Return the golden plan with its first item's fields replaced."""
    plan = json.loads(PLAN)
    plan["items"][0].update(items)
    return {"items": plan["items"]}


TIME: dict[str, Any] = {"kind": "time", "name": "t", "token_ids": [1], "n_prompt": 0, "n_gen": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": []}, "items: is empty"),
        ({"items": 3}, "items: must be a list of objects"),
        ({"items": [3]}, "items: must be a list of objects"),
        ({"max_seq_len": 7}, "prefill and decode needs 8 positions of 7"),
        ({"max_seq_len": 32.0}, "max_seq_len: must be an integer"),
        ({"max_seq_len": "32"}, "max_seq_len: must be an integer"),
        ({"prefill_chunk": 2}, "has a call longer than 2"),
        ({"prefill_chunk": None}, "prefill_chunk: must be an integer"),
        ({"surprise": 1}, "surprise: unknown field"),
        ({"schema": "mobilepack/run-plan/9"}, "schema: is not"),
        ({"method": 3}, "method: must be text"),
        ({"top_k": 0}, "top_k: must be an integer from 1"),
        ({"top_k": True}, "top_k: must be an integer from 1"),
        ({"threads": -1}, "threads: must be an integer from 0"),
        ({"weight_cache": "abc"}, "weight_cache: is neither empty nor a sha256"),
        ({"weight_cache": "A" * 64}, "weight_cache: is neither empty nor a sha256"),
        ({"sample_ids": ["a"]}, "sample_ids: holds what is no integer"),
        ({"sample_ids": [2**31]}, "sample_ids: holds what is no integer"),
        (changed(kind="train"), "items.0.kind: unknown kind 'train'"),
        (changed(name=""), "items.0.name: is empty"),
        (changed(name="free"), "two items are named 'free'"),
        (changed(token_ids=[]), "items.0.token_ids: is empty"),
        (changed(token_ids=[-1]), "items.0.token_ids: holds"),
        (changed(token_ids=[1, 2]), "prefill and decode feeds 8 of 2 ids"),
        (changed(calls=[0]), "items.0.calls: holds"),
        (changed(stop_ids=[1]), "items.0.stop_ids: unknown field"),
        ({"items": [TIME]}, "t times nothing: n_prompt and n_gen are both 0"),
        ({"items": [TIME | {"n_gen": 1, "repetitions": 0}]}, "repetitions: must be an integer"),
        ({"items": [TIME | {"n_gen": 1, "cooldown_s": -0.5}]}, "cooldown_s: must be a number"),
    ],
)
def test_what_python_refuses_is_refused(
    obey: Run, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    plan = json.dumps(json.loads(PLAN) | change).encode()
    with pytest.raises(UsageError):
        RunPlan.parse(plan, "plan")
    done = obey(plan)
    assert (done.returncode, done.stderr) == (1, "")
    assert said in done.stdout
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_an_id_that_the_program_does_not_have_is_named(obey: Run, tmp_path: Path) -> None:
    done = obey(json.dumps(json.loads(PLAN) | {"sample_ids": [9999]}).encode())
    assert (done.returncode, done.stderr) == (1, "")
    assert "the plan names token id 9999, the program has 61" in done.stdout
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        b"", b"{", b"[]", b"3", PLAN + b"x", b"\xff\xfe", b'{"a": 01}', b'{"a": 1.}', b"[" * 9999,
        b'{"a": "\x01"}', b'{"a": "\\ud800"}', b'{"a": 1, "a": 1}', b'{"a": tru}', b'{"a" 1}',
    ],
)  # fmt: skip
def test_a_broken_plan_is_a_report_and_no_crash(obey: Run, plan: bytes) -> None:
    done = obey(plan)
    assert (done.returncode, done.stderr) == (1, "")
    assert "the plan is no" in done.stdout


def test_its_sources_name_no_apple_framework() -> None:
    """Foundation and Dispatch are on Linux too; anything else would end the checks there."""
    found = {
        line.split()[-1]
        for path in (CORE / "Sources/HarnessCore").glob("*.swift")
        for line in path.read_text().splitlines()
        if line.startswith("import ")
    }
    assert found <= {"Foundation", "Dispatch"}, os.fspath(CORE)
