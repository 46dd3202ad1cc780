"""The native runner on this machine: golden plan, contract, kernels, faults."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Harness, Limits
from mobilepack.harness.host import HostHarness
from mobilepack.harness.native.build import RUNNER, SOURCES, built_runner, compile_runner, toolchain
from mobilepack.harness.native.local import NativeHarness
from mobilepack.harness.talk import ItemFinished, parse_event
from mobilepack.testing import HARNESS_CHECKS
from tests.harness.parts import fp32, provisioned, quantised

__all__ = ["fp32", "provisioned", "quantised"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
CONTRACT = Path(__file__).parents[2] / "data" / "contract"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the runner with the toy model in place of ExecuTorch's."""
    folder = tmp_path_factory.mktemp("toy")
    sources = [path for path in SOURCES.glob("*.cpp") if path.name not in ("program.cpp",)]
    compile_runner(
        folder, toolchain("x86_64"), [*sources, Path(__file__).with_name("toy_program.cpp")]
    )
    return folder / RUNNER


def ran(runner: Path, folder: Path, plan: bytes) -> subprocess.CompletedProcess[str]:
    (folder / "plan.json").write_bytes(plan)
    argv = [runner, folder, folder / "plan.json", folder / "result.json"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_it_brings_back_what_the_golden_result_says(toy: Path, tmp_path: Path) -> None:
    golden = json.loads((CONTRACT / "run_result.json").read_text())
    plan = (CONTRACT / "run_plan.json").read_bytes()
    done = ran(toy, tmp_path, plan)
    assert done.returncode == 0, done.stdout
    found = RunResult.read(tmp_path / "result.json")
    expected = RunResult.model_validate_json(json.dumps(golden))
    assert found.plan_sha256 == hashlib.sha256(plan).hexdigest()
    assert without_times(found) == without_times(expected)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == [
        "loaded", *["item", "finished"] * 5, "item",
    ]  # fmt: skip
    parts = [parse_event(line) for line in done.stdout.splitlines() if '"finished"' in line]
    assert all(isinstance(part, ItemFinished) and part.peak_bytes > 0 for part in parts)
    for name in ("rows", "generated", "timings"):
        assert tuple(one for part in parts for one in getattr(part, name)) == getattr(found, name)


def without_times(result: RunResult) -> Any:
    rows = [row.model_dump() for row in result.rows]
    texts = [(one.item, one.token_ids, one.stopped) for one in result.generated]
    shapes = [
        (one.item, len(one.prefill_ns), [len(steps) for steps in one.decode_ns])
        for one in result.timings
    ]
    return rows, texts, shapes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": []}, "items is empty"),
        ({"max_seq_len": 2}, "needs more positions"),
        ({"prefill_chunk": 2}, "longer than prefill_chunk"),
        ({"surprise": 1}, "unknown field surprise"),
        ({"schema": "mobilepack/run-plan/9"}, "schema is not"),
        ({"top_k": 0}, "top_k"),
        ({"sample_ids": [9999]}, "token id 9999"),
        ({"sample_ids": ["a"]}, "sample_ids"),
    ],
)
def test_a_plan_that_it_cannot_obey_is_refused(
    toy: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    plan = json.loads((CONTRACT / "run_plan.json").read_text()) | change
    done = ran(toy, tmp_path, json.dumps(plan).encode())
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["event"]) == (1, "failed")
    assert said in last["why"]
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("plan", [b"", b"{", b"[]", b'{"items": 3}', b"\xff\xfe"])
def test_a_broken_plan_is_a_report_and_no_crash(toy: Path, tmp_path: Path, plan: bytes) -> None:
    done = ran(toy, tmp_path, plan)
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "failed"


@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("recipe", ["quantised", "fp32"])
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None],
    recipe: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    check(NativeHarness(), request.getfixturevalue(recipe), "model.pte", tmp_path / "log.txt")


def plan_of(package: Path) -> RunPlan:
    ids = tuple(int(i) for i in np.random.default_rng(0).integers(0, 2048, 64))
    items = (
        Teacher(name="prefill, then decode", token_ids=ids, calls=(32, 7, *(1,) * 25)),
        Teacher(name="one by one", token_ids=ids, calls=(1,) * 12),
    )
    return RunPlan(
        max_seq_len=64, prefill_chunk=32, sample_ids=tuple(range(0, 2048, 8)), items=items
    )


@pytest.mark.parametrize(("recipe", "limit"), [("quantised", 0.0), ("fp32", 1e-5)])
def test_it_computes_what_python_s_harness_computes(
    recipe: str, limit: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """8da4w runs the same kernels; fp32 calls our own attention instead of ExecuTorch's."""
    package = request.getfixturevalue(recipe)
    log = tmp_path / "log.txt"
    ours = NativeHarness().run(package, plan_of(package), log=log)
    theirs = HostHarness().run(package, plan_of(package), log=log)
    a, b = (np.array([row.sampled for row in result.rows]) for result in (ours, theirs))
    assert np.sqrt(((a - b) ** 2).mean()) <= limit * b.std()
    assert ours.memory.peak_bytes < theirs.memory.peak_bytes / 3  # no Python, no torch


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "ExecuTorch error"),
        (lambda path: path.write_bytes(b"PK" * 4096), "ExecuTorch error"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "ExecuTorch error"),
    ],
)
def test_a_damaged_program_is_a_report(
    quantised: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    package = Path(shutil.copytree(quantised, tmp_path / "a b'$(c)\n"))
    damage(package / "model.pte")
    with pytest.raises(RunFailedError, match=said):
        NativeHarness().run(package, plan_of(package), log=tmp_path / "log.txt")


def test_a_run_that_takes_too_long_is_stopped(quantised: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError) as failure:
        NativeHarness().run(
            quantised, plan_of(quantised), log=tmp_path / "log.txt", limits=Limits(run_s=0.0)
        )
    assert failure.value.code == "run-timeout"


def test_a_second_build_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = built_runner("x86_64")
    monkeypatch.setenv("PATH", "")  # no compiler any more
    assert built_runner("x86_64") == first
