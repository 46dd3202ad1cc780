"""iPhones on a Linux host against the stand-ins of both programs that lead to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mobilepack.commands.apple import apple_devices, apple_harness, apple_tools
from mobilepack.errors import MissingError, MobilepackError, RunFailedError
from mobilepack.harness.base import Harness, Limits, Progress
from mobilepack.harness.ios.container import IosApp
from mobilepack.harness.ios.goios import GoIos
from mobilepack.harness.ios.harness import AppHarness
from mobilepack.harness.ios.lab import LabAppPhone, LabTool
from mobilepack.harness.ios.pymobile import PyMobileDevice
from mobilepack.harness.ios.tool import Tool
from mobilepack.testing import HARNESS_CHECKS
from mobilepack.testing.apple.install import BUNDLE_ID, StandInXcode, toy_app, write_program
from tests.harness.ios.conftest import PLAN

Make = Callable[..., AppHarness]
PROGRAMS = ("ios", "pymobiledevice3")
VARIABLES = {"ios": "MOBILEPACK_GO_IOS", "pymobiledevice3": "MOBILEPACK_PYMOBILEDEVICE3"}


@pytest.fixture
def lab(xcode: StandInXcode, monkeypatch: pytest.MonkeyPatch) -> StandInXcode:
    """A host with no Xcode; its phone is plugged in."""
    for name in ("MOBILEPACK_XCRUN", *VARIABLES.values(), "PYMOBILEDEVICE3_UDID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    xcode.add_iphone()
    return xcode


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tool(program: str, lab: StandInXcode) -> LabTool:
    found = Tool((str(lab.lab(program)),))
    return GoIos(found, poll_s=0.2) if program == "ios" else PyMobileDevice(found)


@pytest.fixture
def phone(tool: LabTool, tmp_path: Path) -> Make:
    """Return a function for a harness; its words are the toy's misbehaviour."""

    def make(*toy: str) -> AppHarness:
        app = IosApp.at(toy_app(tmp_path, *toy))
        return AppHarness(LabAppPhone(tool, app, tool.phones()[0]))

    return make


@pytest.mark.slow
@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None], phone: Make, package: Path, tmp_path: Path
) -> None:
    harness = phone()
    harness.run(package, PLAN, log=tmp_path / "log.txt")  # pushes, which later runs need not
    check(harness, package, "model.pte", tmp_path / "log.txt")


@pytest.mark.slow
def test_a_folder_is_pushed_whole_and_once(
    phone: Make, package: Path, tmp_path: Path, lab: StandInXcode
) -> None:
    inner = package / "model.mlpackage/Data"
    inner.mkdir(parents=True)
    (inner / "weight.bin").write_bytes(b"w" * 1000)
    harness = phone()
    seen: list[Progress] = []
    plan = PLAN.model_copy(update={"program": "model.mlpackage"})
    for _ in range(2):
        with pytest.raises(RunFailedError, match="is not there"):  # the toy wants a file
            harness.run(package, plan, log=tmp_path / "log.txt", on_progress=seen.append)
    assert [one.item for one in seen] == ["push model.mlpackage (0.0 MB)"]
    (one,) = lab.machines().values()
    programs = Path(one.apps[BUNDLE_ID].data) / "Documents/mobilepack/programs"
    (pushed,) = programs.glob("*/model.mlpackage/Data/weight.bin")
    assert pushed.read_bytes() == b"w" * 1000


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("locked", "phone-locked", "could not be, unlocked"),
        ("tunnel-down", "tunnel-down", "tunnel"),
        ("no-usbmuxd", "no-usbmuxd", "usbmuxd"),
    ],
)
def test_what_goes_wrong_is_named(
    phone: Make, lab: StandInXcode, package: Path, tmp_path: Path, fault: str, code: str, said: str
) -> None:
    harness = phone()
    lab.install(fault)
    with pytest.raises(MobilepackError) as caught:
        harness.run(package, PLAN, log=tmp_path / "log.txt", limits=Limits.within(20))
    assert (caught.value.code, bool(caught.value.next)) == (code, True)
    assert said in caught.value.why


@pytest.mark.slow
def test_a_crash_is_named_by_the_report_that_it_leaves(
    program: str, phone: Make, lab: StandInXcode, package: Path, tmp_path: Path
) -> None:
    """A report that was there before says nothing of this run."""
    (udid,) = lab.machines()
    old = lab.state / udid / "Library/Logs/DiagnosticReports/MobilepackDemo-9999-01-01-000000.ips"
    old.parent.mkdir(parents=True)
    old.touch()
    limits = Limits(load_s=3.0, run_s=5.0)
    with pytest.raises(RunFailedError, match="MobilepackDemo-2") as caught:
        phone("crash").run(package, PLAN, log=tmp_path / "log.txt", limits=limits)
    assert caught.value.code == "app-crashed"
    code = "run-timeout" if program == "ios" else "no-result"  # only a console tells the end
    with pytest.raises(RunFailedError) as caught:
        phone("no-result").run(package, PLAN, log=tmp_path / "log.txt", limits=limits)
    assert caught.value.code == code


@pytest.mark.slow
def test_an_app_that_hangs_is_ended(
    phone: Make, lab: StandInXcode, package: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunFailedError) as caught:
        phone("hang").run(
            package, PLAN, log=tmp_path / "log.txt", limits=Limits(load_s=2.0, run_s=4.0)
        )
    assert caught.value.code == "run-timeout"
    (one,) = lab.machines().values()
    assert one.running == {}


def test_what_is_not_there_is_named(tool: LabTool, lab: StandInXcode, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (udid,) = lab.machines()
    for where, app, code in (
        (udid, "no.such.app", "app-not-installed"),
        (udid[:-1] + "B", BUNDLE_ID, "unknown-device"),
    ):
        with pytest.raises(MissingError) as caught:
            tool.container(where, app).push(tmp_path / "x", "Documents/a/x")
        assert caught.value.code == code


def test_words_of_another_version_are_named(tool: GoIos | PyMobileDevice) -> None:
    with pytest.raises(MissingError) as caught:
        tool.tool.run("cannot list", "list", "--no-such-option")
    assert caught.value.code == "tool-version"


def test_a_listing_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for text in ("no json", '[{"no": "Identifier"}]', "[1]"):
        write_program(tmp_path / "pm3", f"#!/bin/sh\necho '{text}'\n")
        with pytest.raises(RunFailedError) as caught:
            PyMobileDevice(Tool((str(tmp_path / "pm3"),))).phones()
        assert caught.value.code == "iphone-list"


def test_go_ios_is_used_where_both_are(lab: StandInXcode, monkeypatch: pytest.MonkeyPatch) -> None:
    (udid,) = lab.machines()
    for name in reversed(PROGRAMS):
        monkeypatch.setenv(VARIABLES[name], str(lab.lab(name)))
        found, todo = apple_tools()
        title = {"ios": "go-ios", "pymobiledevice3": "pymobiledevice3"}[name]
        assert found.startswith(f"{title} at {lab.folder}/bin/{name}: iPhones; no simulators")
        assert todo == ""
        rows, _ = apple_devices()
        assert [(one.id, one.name) for one in rows] == [(udid, "iPhone16,1, iOS 18.5")]
    assert apple_harness(udid, None, purpose="test").device.kind == "device"
    with pytest.raises(MissingError, match=f"did you mean '{udid}'"):
        apple_harness(udid[:-1] + "B", None, purpose="test")
