"""Packed weights in a file: the same logits, from the first load on, whatever the file holds."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from mobilepack.cache import VARIABLE
from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.build import BuildOptions, build
from mobilepack.contract.package import Package, open_package
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.harness import weight_cache
from mobilepack.harness.host import HostHarness
from mobilepack.harness.weight_cache import WeightCache, file_of
from mobilepack.pipeline.plan import Choices

KNOWN = not weight_cache._unsupported()
needs_known = pytest.mark.skipif(not KNOWN, reason=f"weight cache {weight_cache._unsupported()}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / weight_cache.FOLDER


@pytest.fixture(scope="module", params=["8da4w", "fp32"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    choices = Choices(linear=request.param, max_seq_len=64, prefill_chunk=16)
    out = tmp_path_factory.mktemp(request.param)
    return open_package(build(BuildOptions(out=out, choices=choices))[0].folder)


def run(package: Package, log: Path, *, cached: bool = True) -> RunResult:
    ids = tuple(range(5, 45))
    plan = RunPlan(
        max_seq_len=64,
        prefill_chunk=16,
        top_k=2048,
        weight_cache=package.weight_cache if cached else "",
        items=(Teacher(name="t", token_ids=ids, calls=(16, 16, *(1,) * 8)),),
    )
    return HostHarness().run(package.root, plan, log=log)


def state(result: RunResult) -> str:
    return result.environment.conditions["weight_cache"]


@needs_known
@pytest.mark.slow
def test_a_load_from_packed_weights_computes_the_same(
    package: Package, folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    plain, first, second = (run(package, log, cached=c) for c in (False, True, True))
    assert [state(result) for result in (plain, first, second)] == ["off", "written", "used"]
    assert plain.rows == first.rows == second.rows
    (file,) = folder.glob("*.bin")
    assert file == file_of(package.weight_cache)
    assert file.stat().st_mode & 0o077 == 0


@needs_known
@pytest.mark.slow
def test_a_damaged_file_is_written_again(package: Package, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    plain = run(package, log)
    (file,) = folder.glob("*.bin")
    for size in (10, file.stat().st_size - 1):
        os.truncate(file, size)
        result = run(package, log)
        assert state(result) == "written"
        assert result.rows == plain.rows
    assert state(run(package, log)) == "used"


@needs_known
@pytest.mark.slow
def test_a_file_in_use_and_a_folder_that_cannot_be_written_cost_only_time(
    package: Package, folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    plain = run(package, log)
    (file,) = folder.glob("*.bin")
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        busy = run(package, log)
    assert "not used" in state(busy)
    assert busy.rows == plain.rows
    file.unlink()
    folder.rmdir()
    folder.touch()  # a file where the folder should be
    refused = run(package, log)
    assert "not used" in state(refused)
    assert refused.rows == plain.rows


@needs_known
@pytest.mark.slow
def test_bench_tells_both_loads(package: Package, folder: Path) -> None:
    options = BenchOptions(prompt_tokens=(8,), gen_tokens=(), warmups=0, repetitions=1)
    record = bench(package.root, options).bench
    assert len(record.load_ms) == len(record.cached_load_ms) == 2


def test_upstreams_own_programs_are_loaded_without(folder: Path, tmp_path: Path) -> None:
    cache = WeightCache(tmp_path, "0" * 64)  # a folder without ExecuTorch's libraries
    cache.enable()
    assert cache.outcome().startswith("not used")


def test_another_version_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "_VERSION", "0.0.0")
    cache = WeightCache(Path(), "0" * 64)
    cache.enable()
    assert cache.outcome() == "not used: known for executorch 0.0.0, this is 1.5.1"
    assert not folder.exists()


def test_the_oldest_files_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "KEEP_BYTES", 250)
    folder.mkdir(parents=True)
    for age, name in enumerate(("new", "old", "oldest", "kept")):
        file = folder / f"{name}.bin"
        file.write_bytes(bytes(100))
        os.utime(file, (1e9 - age, 1e9 - age))
    weight_cache._make_room(folder / "kept.bin")
    assert {file.stem for file in folder.glob("*")} == {"new", "old", "kept"}
