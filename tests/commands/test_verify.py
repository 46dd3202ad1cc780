"""`verify` writes what it found, and fails by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mobilepack.commands.verify import VerifyOptions, verify
from mobilepack.contract.parity import Parity
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import CheckFailedError, MissingError, RunFailedError, UsageError
from mobilepack.harness.base import Device, Progress
from mobilepack.harness.lease import BUSY
from mobilepack.harness.runner import Logits, TokenArray
from mobilepack.testing import FakeHarness, ToyModel
from tests.packages import toy_package


class Broken(ToyModel):
    """Forgets everything when it decodes at position 20 or later."""

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        logits = super().__call__(tokens, position)
        return logits[::-1].copy() if position >= 20 else logits


@pytest.mark.parametrize("quantised", [False, True])
def test_a_good_package_passes_and_everything_is_written(tmp_path: Path, quantised: bool) -> None:
    package = toy_package(tmp_path / "out" / "xnnpack", quantised=quantised)
    seen: list[Progress] = []
    result = verify(package.parent, harness=FakeHarness(), on_progress=seen.append)
    result.raise_if_failed()
    assert result.parity.passed
    assert result.parity.culprit is None
    assert result.parity.recipe == ("8da4w group 32" if quantised else "fp32")
    assert (result.parity.floor is not None) == quantised
    assert result.folder.parent == package / "runs" / "fake"
    assert Parity.read(result.folder / "parity.json") == result.parity
    plan = RunPlan.read(result.folder / "run_plan.json")
    assert RunResult.read(result.folder / "run_result.json").rows
    assert (result.folder / "log.txt").is_file()
    assert len(seen) == len(plan.items) + 1


def test_what_was_not_run_is_a_row_with_a_reason(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p", greedy=False)
    rows = verify(package, harness=FakeHarness()).parity.rows
    missing = {row.rung: row.reason for row in rows if row.status == "not run"}
    assert set(missing) == {
        "exported",
        "program on host",
        "program on emulated arm64",
        "program on device",
    }
    assert "no greedy text" in missing["program on host"]


def test_a_device_has_its_own_rung_and_folder(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    harness = FakeHarness(device=Device("usb:1", "phone", "device"))
    result = verify(package, harness=harness, host=FakeHarness())
    assert result.folder.parent.name == "usb_1"
    rungs = {row.rung for row in result.parity.rows if row.status == "passed"}
    assert rungs == {"program on host", "program on device"}
    beside = [r for r in result.parity.rows if r.against == "program on host"]
    assert [r.rung for r in beside if r.check.startswith("the same calls")] == ["program on device"]


def test_a_device_that_differs_from_this_machine_is_the_culprit(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    harness = FakeHarness(Broken(61), device=Device("usb:1", "phone", "device"))
    result = verify(package, harness=harness, host=FakeHarness())
    assert result.parity.culprit == "program on device"
    assert result.parity.rows[-2].status == "failed"


def test_a_run_that_breaks_on_a_device_is_a_failed_rung_that_is_written(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    died = RunFailedError("runtime-died", "the run died", why="SIGKILL", next="read the log")
    harness = FakeHarness(device=Device("usb:1", "phone", "device"), error=died)
    with pytest.raises(RunFailedError, match="SIGKILL"):
        verify(package, harness=harness, host=FakeHarness())
    (written,) = package.glob("runs/usb_1/*/parity.json")
    parity = Parity.read(written)
    assert (parity.passed, parity.culprit, parity.device) == (False, "program on device", "usb:1")
    failed = [(row.rung, row.reason) for row in parity.rows if row.status == "failed"]
    assert failed == [("program on device", "the run died: SIGKILL")]
    levels = {level.rung: level for level in parity.levels}
    assert levels["program on host"].losses
    assert (levels["program on device"].status, levels["program on device"].where) == (
        "failed",
        "usb:1",
    )


def test_a_device_that_somebody_holds_has_no_verdict(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    busy = RunFailedError(BUSY, "it is in use", why="held", next="wait")
    harness = FakeHarness(device=Device("usb:1", "phone", "device"), error=busy)
    with pytest.raises(RunFailedError, match="in use"):
        verify(package, harness=harness, host=FakeHarness())
    assert not list(package.glob("runs/usb_1/*/parity.json"))


def test_a_wrong_program_fails_after_the_results_are_written(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    result = verify(package, harness=FakeHarness(Broken(61)))
    assert not result.parity.passed
    assert result.parity.culprit == "program on host"
    assert not json.loads((result.folder / "parity.json").read_text())["passed"]
    with pytest.raises(CheckFailedError) as caught:
        result.raise_if_failed()
    assert caught.value.exit_code == 3
    assert "eager fp32" in caught.value.what
    assert "longest: prefill of 40" in caught.value.why
    assert "parity.json" in caught.value.next


def test_a_run_that_dies_leaves_its_plan_and_log(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    error = RunFailedError("runtime-died", "it died", why="SIGSEGV", next="read the log")
    with pytest.raises(RunFailedError):
        verify(package, harness=FakeHarness(error=error))
    (folder,) = (package / "runs" / "fake").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["log.txt", "run_plan.json"]


def test_options_reach_the_plan_and_the_verdict(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p", quantised=True)
    harness = FakeHarness()
    options = VerifyOptions(threads=3, max_ppl_ratio=0.5, decode_steps=5)
    result = verify(package, options, harness=harness)
    assert harness.ran[0].threads == 3
    assert not result.parity.passed
    shortest = harness.ran[0].items[0]
    assert isinstance(shortest, Teacher)
    assert shortest.calls == (1,) * 6


def test_a_package_without_a_reference_cannot_be_green(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = [f for f in manifest["files"] if not f["path"].startswith("reference/")]
    path.write_text(json.dumps(manifest))
    shutil.rmtree(package / "reference")
    with pytest.raises(MissingError, match="reference/"):
        verify(package, harness=FakeHarness())


def test_a_tampered_package_is_not_run(tmp_path: Path) -> None:
    package = toy_package(tmp_path / "p")
    (package / "model.pte").write_bytes(b"evil program")
    harness = FakeHarness()
    with pytest.raises(UsageError):
        verify(package, harness=harness)
    assert harness.ran == []
