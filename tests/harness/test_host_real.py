"""The host harness with the real runtime: contract, verdicts, faults, and an orphan's end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.chat import Chat, ChatOptions
from mobilepack.commands.verify import verify
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import file_entry, open_package
from mobilepack.contract.reference import Reference
from mobilepack.contract.run_plan import Generate, RunPlan, Teacher
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Harness
from mobilepack.harness.host import HostHarness
from mobilepack.pipeline.plan import Choices
from mobilepack.process import child_env
from mobilepack.testing import HARNESS_CHECKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model with the target's own recipe (8da4w)."""
    out = tmp_path_factory.mktemp("quantised")
    return build(BuildOptions(out=out))[0].folder


@pytest.fixture(scope="module")
def fp32_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model in fp32 with chunks that a prompt needs several of."""
    out = tmp_path_factory.mktemp("fp32")
    choices = Choices(linear="fp32", max_seq_len=128, prefill_chunk=48)
    return build(BuildOptions(out=out, choices=choices))[0].folder


@pytest.fixture
def copied(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "copy"))


def _sign(package: Path) -> None:
    """Make the manifest agree with files that a test has changed."""
    manifest = Manifest.read(package / "manifest.json")
    files = tuple(file_entry(package, entry.path) for entry in manifest.files)
    text = manifest.model_copy(update={"files": files}).to_json()
    (package / "manifest.json").write_text(text)


@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_host_passes_the_harness_checks(
    check: Callable[[Harness, Path, str, Path], None], fp32_package: Path, tmp_path: Path
) -> None:
    check(HostHarness(), fp32_package, "model.pte", tmp_path / "log.txt")


def test_both_recipes_are_proved(package: Path, fp32_package: Path) -> None:
    for folder in (package, fp32_package):
        result = verify(folder)
        result.raise_if_failed()
        passed = [row for row in result.parity.rows if row.status == "passed"]
        assert len(passed) >= 6
        assert sum(row.compared for row in passed) > 100


def test_a_reference_of_other_weights_fails_by_name(copied: Path) -> None:
    reference = Reference.read(copied / "reference")
    rows = reference.rows["quantised"]
    rng = np.random.default_rng(0)
    noise = 0.3 * rows.sampled.std() * rng.standard_normal(rows.sampled.shape)
    wrong = dataclasses.replace(rows, sampled=rows.sampled + noise.astype(np.float32))
    Reference(reference.index, {**reference.rows, "quantised": wrong}).write(copied / "reference")
    _sign(copied)
    result = verify(copied)
    assert not result.parity.passed
    assert result.parity.culprit == "exported"  # the first rung below the wrong numbers


def test_a_program_that_is_none_is_refused_with_its_log(copied: Path) -> None:
    (copied / "model.pte").write_bytes(b"\0" * 4096)
    _sign(copied)
    with pytest.raises(RunFailedError) as caught:
        verify(copied)
    assert caught.value.code == "runtime-failed"
    assert "loading the program" in caught.value.what
    log = Path(caught.value.next.rpartition(": ")[2])
    assert log.is_file()


def test_a_method_that_is_absent_is_named(package: Path, tmp_path: Path) -> None:
    item = Teacher(name="t", token_ids=(1,), calls=(1,))
    plan = RunPlan(method="backward", max_seq_len=4, prefill_chunk=4, items=(item,))
    with pytest.raises(RunFailedError) as caught:
        HostHarness().run(package, plan, log=tmp_path / "log.txt")
    assert caught.value.code == "runtime-failed"


def test_a_call_longer_than_the_program_allows_is_refused(
    fp32_package: Path, tmp_path: Path
) -> None:
    item = Teacher(name="too long", token_ids=(1,) * 60, calls=(60,))
    plan = RunPlan(max_seq_len=128, prefill_chunk=60, items=(item,))
    with pytest.raises(RunFailedError) as caught:
        HostHarness().run(fp32_package, plan, log=tmp_path / "log.txt")
    assert "too long" in caught.value.what


def test_bench_measures_the_embedded_model(package: Path) -> None:
    options = BenchOptions(prompt_tokens=(64,), gen_tokens=(8,), warmups=1, repetitions=2)
    result = bench(package, options)
    record = result.bench
    assert [test.test for test in record.tests] == ["pp64", "tg8"]
    assert all(test.avg_ts > 10 for test in record.tests)
    assert record.environment.threads >= 1
    size = record.program_bytes
    assert record.loaded_bytes > size / 4
    assert record.peak_over_base_bytes >= record.loaded_bytes
    assert not record.representative
    assert set(record.environment.runtime) >= {"executorch", "torch"}


def test_chat_says_what_greedy_generation_says(fp32_package: Path, tmp_path: Path) -> None:
    with Chat.open(fp32_package, ChatOptions(max_new_tokens=12)) as chat:
        first = "".join(chat.say("What is 3 plus 4?"))
        chat.reset()
        assert "".join(chat.say("What is 3 plus 4?")) == first
        stats = chat.stats
        list(chat.say("And 1 plus 1?"))
        assert chat.stats is not None
        assert chat.stats.cached_tokens > 0
    assert stats is not None
    assert stats.cached_tokens == 0
    assert chat.load_ms > 0


def test_text_through_the_harness_is_deterministic(package: Path, tmp_path: Path) -> None:
    item = Generate(name="g", token_ids=(1, 50, 60, 70), max_new_tokens=8)
    plan = RunPlan(max_seq_len=64, prefill_chunk=64, threads=2, items=(item,))
    texts = {
        HostHarness().run(package, plan, log=tmp_path / "log.txt").generated[0].token_ids
        for _ in range(2)
    }
    assert len(texts) == 1


def test_the_child_ends_when_its_parent_does(package: Path, tmp_path: Path) -> None:
    prompt = tuple(range(3, 40))
    item = {"kind": "time", "name": "long", "token_ids": prompt, "n_prompt": 37, "n_gen": 0}
    item |= {"n_depth": 0, "warmups": 0, "repetitions": 1_000_000, "cooldown_s": 0.0}
    plan = {"max_seq_len": 64, "prefill_chunk": 64, "items": [item]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    argv = [sys.executable, "-m", "mobilepack.harness.host_child", "run", str(package)]
    argv += [str(tmp_path / "plan.json"), str(tmp_path / "result.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, env=child_env(), **pipes) as child:  # type: ignore[call-overload]
        assert b"loaded" in child.stdout.readline()
        child.stdin.close()
        deadline = time.monotonic() + 30
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        assert child.returncode == 1


def test_a_package_is_still_whole_after_all_that(package: Path) -> None:
    open_package(package)
