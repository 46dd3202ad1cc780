"""The whole simctl path against the stand-in: every command is real, the model is a toy."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilepack.errors import MissingError, MobilepackError, RunFailedError
from mobilepack.harness.base import Harness, Limits, Progress
from mobilepack.harness.ios.container import IosApp
from mobilepack.harness.ios.harness import AppHarness
from mobilepack.harness.ios.simulator import Listing, Simctl, SimulatorPhone
from mobilepack.testing import HARNESS_CHECKS
from mobilepack.testing.apple.install import BUNDLE_ID, StandInXcode, toy_app
from tests.harness.ios.conftest import PLAN

Make = Callable[..., AppHarness]


@pytest.mark.slow
@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None],
    simulator: Make,
    simctl: Simctl,
    xcode: StandInXcode,
    package: Path,
    tmp_path: Path,
) -> None:
    udid = simctl.create()
    check(simulator(udid=udid), package, "model.pte", tmp_path / "log.txt")
    assert xcode.machines()[udid].state == "Shutdown"  # as it was


def test_a_new_simulator_is_made_used_and_deleted(
    simulator: Make, xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    result = simulator().run(package, PLAN, log=tmp_path / "log", on_progress=seen.append)
    assert xcode.machines() == {}
    verbs = [words[1] for words in xcode.calls()]
    assert verbs[:4] == ["list", "create", "bootstatus", "install"]
    assert verbs[-3:] == ["terminate", "shutdown", "delete"]
    assert (result.environment.kind, result.environment.representative) == ("simulator", False)
    assert [one.item for one in seen] == ["t", ""]


@pytest.mark.slow
def test_one_that_runs_already_is_used_and_left_running(
    simulator: Make, simctl: Simctl, xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    udid = simctl.create()
    simctl.boot(udid)
    simctl.boot(udid)
    assert simulator(udid=udid).run(package, PLAN, log=tmp_path / "log").rows
    assert xcode.machines()[udid].state == "Booted"


def failure(
    harness: AppHarness, package: Path, folder: Path, seconds: float = 60
) -> MobilepackError:
    with pytest.raises(MobilepackError) as caught:
        harness.run(package, PLAN, log=folder / "log.txt", limits=Limits.within(seconds))
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("toy", "code", "said"),
    [
        ("crash", "app-crashed", "EXC_CRASH (SIGABRT)"),
        ("no-result", "no-result", "wrote none"),
        ("other-id", "run-mixed-up", "it wrote run another"),
    ],
)
def test_a_bad_app_is_named_and_its_simulator_deleted(
    simulator: Make,
    xcode: StandInXcode,
    package: Path,
    tmp_path: Path,
    toy: str,
    code: str,
    said: str,
) -> None:
    error = failure(simulator(toy), package, tmp_path)
    assert (type(error), error.code) == (RunFailedError, code)
    assert said in error.why
    assert error.next
    assert xcode.machines() == {}


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("no-runtime", MissingError, "no-simulator-runtime"),
        ("container-gone", RunFailedError, "container-gone"),
    ],
)
def test_what_goes_wrong_around_it_is_named(
    simulator: Make,
    xcode: StandInXcode,
    package: Path,
    tmp_path: Path,
    fault: str,
    kind: type[MobilepackError],
    code: str,
) -> None:
    xcode.install(fault)
    error = failure(simulator(), package, tmp_path)
    assert (type(error), error.code) == (kind, code)
    assert xcode.machines() == {}


@pytest.mark.slow
def test_an_app_that_hangs_is_ended_in_time(
    simulator: Make, xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    start = time.monotonic()
    error = failure(simulator("hang"), package, tmp_path, 3)
    assert error.code == "run-timeout"
    assert "after the program was loaded" in error.why
    assert time.monotonic() - start < 20
    assert ["simctl", "terminate"] in [words[:2] for words in xcode.calls()]
    assert xcode.machines() == {}


def test_a_boot_that_hangs_is_ended_in_time(
    simctl: Simctl, xcode: StandInXcode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilepack.harness.ios.simulator._BOOT_S", 0.5)
    udid = simctl.create()
    xcode.install("boot-hangs")
    with pytest.raises(RunFailedError, match="stopped after") as caught:
        simctl.boot(udid)
    assert caught.value.code == "tool-timeout"


@pytest.mark.slow
def test_output_that_never_comes_is_read_from_the_container(
    simulator: Make, xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    xcode.install("silent")
    seen: list[Progress] = []
    simulator().run(package, PLAN, log=tmp_path / "log", on_progress=seen.append)
    assert [one.item for one in seen] == ["t", ""]


def test_an_app_that_is_not_installed_is_named(
    simctl: Simctl, package: Path, tmp_path: Path
) -> None:
    harness = AppHarness(SimulatorPhone(simctl, IosApp(), simctl.create()))
    error = failure(harness, package, tmp_path)
    assert (type(error), error.code) == (MissingError, "app-not-installed")
    assert "--app" in error.next


def test_a_simulator_that_does_not_exist_is_named(
    simulator: Make, package: Path, tmp_path: Path
) -> None:
    error = failure(simulator(udid="5B4C4E0B-0000-4000-8000-00000000A001"), package, tmp_path)
    assert error.code == "unknown-device"


@pytest.mark.slow
def test_an_interrupt_deletes_the_simulator(
    simulator: Make, xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    # a shell starts what runs in the background with interrupts ignored, and Python leaves that so
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            simulator("hang").run(package, PLAN, log=tmp_path / "log.txt", limits=Limits(run_s=60))
    finally:
        signal.signal(signal.SIGINT, before)
    assert xcode.machines() == {}


def test_what_a_killed_process_left_is_swept(simctl: Simctl, xcode: StandInXcode) -> None:
    device = "iPhone 17 Pro"
    simctl.tool.run("", "create", "mobilepack-4194305", device)  # above Linux' largest number
    simctl.tool.run("", "create", f"mobilepack-{os.getppid()}", device)
    simctl.tool.run("", "create", "mine", device)
    simctl.create()
    left = sorted(one.name for one in xcode.machines().values())
    assert left == sorted([f"mobilepack-{os.getpid()}", f"mobilepack-{os.getppid()}", "mine"])


def test_both_spellings_of_a_runtime_are_read() -> None:
    """simctl before Xcode 10.1 used names for keys; facts/ios.md."""
    rows = [{"udid": "U", "name": "iPhone X", "state": "Shutdown"}]
    devices = {"iOS 12.0": rows, "com.apple.CoreSimulator.SimRuntime.iOS-26-5": rows}
    found = Listing.model_validate_json(json.dumps({"devices": devices})).simulators()
    assert [one.runtime for one in found] == ["iOS 12.0", "iOS 26.5"]


def test_an_older_xcode_refuses_what_it_does_not_know(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = StandInXcode(tmp_path / "old", "14.3.1")
    from mobilepack.harness.ios.devicectl import Devicectl
    from mobilepack.harness.ios.tool import Tool

    with pytest.raises(MissingError, match="unable to find utility") as caught:
        Devicectl(Tool((str(old.install()), "devicectl"))).phones()
    assert caught.value.code == "no-xcode"


def test_an_app_is_known_by_its_bundle(tmp_path: Path) -> None:
    assert IosApp.at(toy_app(tmp_path)).bundle_id == BUNDLE_ID
    with pytest.raises(MobilepackError, match=r"no Info\.plist"):
        IosApp.at(tmp_path)
