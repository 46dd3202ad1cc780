"""Stand-in Apple tools, an app with a toy model, and a package whose program is never opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.harness.ios.container import IosApp
from mobilepack.harness.ios.devicectl import CONSOLE_SINCE, Devicectl, DevicectlPhone
from mobilepack.harness.ios.harness import AppHarness
from mobilepack.harness.ios.simulator import Simctl, SimulatorPhone
from mobilepack.harness.ios.tool import Tool
from mobilepack.testing.apple.install import StandInXcode, toy_app

PLAN = RunPlan(
    max_seq_len=8, prefill_chunk=4, items=(Teacher(name="t", token_ids=(1, 2), calls=(2,)),)
)


@pytest.fixture
def xcode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInXcode:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path / "cache"))
    made = StandInXcode(tmp_path / "xcode")
    monkeypatch.setenv("MOBILEPACK_XCRUN", str(made.install()))
    return made


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "model.pte").write_bytes(b"a toy needs none")
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return toy_app(tmp_path)


@pytest.fixture
def simctl(xcode: StandInXcode) -> Simctl:
    return Simctl(Tool((str(xcode.folder / "bin/xcrun"), "simctl")))


@pytest.fixture
def simulator(simctl: Simctl, tmp_path: Path) -> Callable[..., AppHarness]:
    """Return a function for a harness of a new simulator; its words are the toy's misbehaviour."""

    def make(*toy: str, udid: str = "") -> AppHarness:
        return AppHarness(SimulatorPhone(simctl, IosApp.at(toy_app(tmp_path, *toy)), udid))

    return make


@pytest.fixture
def iphone(xcode: StandInXcode, tmp_path: Path) -> Callable[..., AppHarness]:
    """Return a function for a harness of an iPhone on a Mac."""

    def make(*toy: str) -> AppHarness:
        xcode.add_iphone()
        version = tuple(int(part) for part in xcode.xcode.split("."))
        ctl = Devicectl(
            Tool((str(xcode.folder / "bin/xcrun"), "devicectl")), console=version >= CONSOLE_SINCE
        )
        return AppHarness(DevicectlPhone(ctl, IosApp.at(toy_app(tmp_path, *toy)), ctl.phones()[0]))

    return make
