"""iPhones on a Mac, against the stand-in; both shapes of devicectl's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.errors import MissingError, MobilepackError, RunFailedError
from mobilepack.harness.base import Harness, Limits, Progress
from mobilepack.harness.ios.container import IosApp
from mobilepack.harness.ios.devicectl import Devicectl, DevicectlPhone, parse_devices
from mobilepack.harness.ios.harness import AppHarness
from mobilepack.harness.ios.tool import Tool
from mobilepack.testing import HARNESS_CHECKS
from mobilepack.testing.apple.install import StandInXcode
from tests.harness.ios.conftest import PLAN

Make = Callable[..., AppHarness]


@pytest.mark.slow
@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None], iphone: Make, package: Path, tmp_path: Path
) -> None:
    harness = iphone()
    harness.run(package, PLAN, log=tmp_path / "log.txt")  # pushes, which later runs need not
    check(harness, package, "model.pte", tmp_path / "log.txt")


@pytest.mark.slow
def test_a_program_is_pushed_once(
    iphone: Make, xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    harness = iphone()
    seen: list[Progress] = []
    for _ in range(2):
        harness.run(package, PLAN, log=tmp_path / "log.txt", on_progress=seen.append)
    pushed = [words for words in xcode.calls() if words[1:4] == ["device", "copy", "to"]]
    assert len([words for words in pushed if "model.pte" in str(words)]) == 1
    assert [one.item for one in seen] == ["push model.pte (0.0 MB)", "t", "", "t", ""]
    assert harness.device.kind == "device"


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("locked", "phone-locked", "could not be, unlocked"),
        ("jetsam", "app-out-of-memory", "SIGKILL after the program was loaded"),
    ],
)
def test_what_goes_wrong_is_named(
    iphone: Make,
    xcode: StandInXcode,
    package: Path,
    tmp_path: Path,
    fault: str,
    code: str,
    said: str,
) -> None:
    harness = iphone("hang")  # an app that would be done could be quicker than its end
    xcode.install(fault)
    with pytest.raises(RunFailedError) as caught:
        harness.run(package, PLAN, log=tmp_path / "log.txt", limits=Limits.within(30))
    assert (caught.value.code, bool(caught.value.next)) == (code, True)
    assert said in caught.value.why


def test_an_app_that_is_not_installed_is_named(
    xcode: StandInXcode, package: Path, tmp_path: Path
) -> None:
    xcode.add_iphone()
    ctl = Devicectl(Tool((str(xcode.folder / "bin/xcrun"), "devicectl")))
    harness = AppHarness(DevicectlPhone(ctl, IosApp("com.no.such"), ctl.phones()[0]))
    with pytest.raises(MissingError, match=r"no app com\.no\.such") as caught:
        harness.run(package, PLAN, log=tmp_path / "log.txt")
    assert caught.value.code == "app-not-installed"


def test_a_crash_is_named_by_its_signal(iphone: Make, package: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="signal 6") as caught:
        iphone("crash").run(package, PLAN, log=tmp_path / "log.txt")
    assert caught.value.code == "app-crashed"


@pytest.mark.parametrize("version", ["26.6", "27.0"])
def test_a_tunnel_that_is_down_is_named(tmp_path: Path, version: str) -> None:
    mac = StandInXcode(tmp_path / version, version)
    ctl = Devicectl(Tool((str(mac.install("tunnel-down")), "devicectl")))
    mac.add_iphone()
    (phone,) = ctl.phones()
    assert phone.state == "unreachable"
    with pytest.raises(RunFailedError) as caught, DevicectlPhone(ctl, IosApp(), phone).ready(print):
        pass
    assert caught.value.code == "phone-unreachable"
    words = ("device", "install", "app", "--device", phone.udid, str(tmp_path))
    with pytest.raises(MobilepackError) as caught_later:  # it went down after it was listed
        ctl.tool.run("cannot install", *words)
    assert caught_later.value.code == "phone-unreachable"


@pytest.mark.slow
def test_without_a_console_files_are_read(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch, iphone: Make
) -> None:
    """Xcode 15 has none: its grammar refuses the option."""
    mac = StandInXcode(tmp_path / "15", "15.4")
    tool = Tool((str(mac.install()), "devicectl"))
    mac.add_iphone()
    from mobilepack.testing.apple.install import toy_app

    app = IosApp.at(toy_app(tmp_path))
    for console in (True, False):
        ctl = Devicectl(tool, console=console)
        harness = AppHarness(DevicectlPhone(ctl, app, ctl.phones()[0]))
        if console:
            with pytest.raises(MissingError, match="Unknown option '--console'") as caught:
                harness.run(package, PLAN, log=tmp_path / "log.txt", limits=Limits.within(20))
            assert caught.value.code == "xcode-version"
        else:
            assert harness.run(package, PLAN, log=tmp_path / "log.txt").rows


def fields(version: int, **changes: str) -> dict[str, Any]:
    hardware = {"udid": "U", "platform": "iOS", "marketingName": "iPhone 15 Pro"}
    state = {"name": "Jo", "osVersionNumber": "18.1", "developerModeStatus": "enabled"}
    connection = {"pairingState": "paired", "tunnelState": "disconnected"}
    for part in (hardware, state, connection):
        part |= {key: value for key, value in changes.items() if key in part or key == "reality"}
    row: dict[str, Any] = {"identifier": "I"}
    if version >= 5:
        parts = {"hardware": hardware, "state": state, "connection": connection}
        return row | {"properties": parts}
    parts = (hardware, state, connection)
    names = ("hardwareProperties", "deviceProperties", "connectionProperties")
    return row | dict(zip(names, parts, strict=True))


@pytest.mark.parametrize("version", [2, 5])
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "ready"),
        ({"pairingState": "unpaired"}, "not paired"),
        ({"tunnelState": "unavailable"}, "unreachable"),
        ({"developerModeStatus": "disabled"}, "developer mode off"),
    ],
)
def test_both_shapes_say_the_same(version: int, changes: dict[str, str], state: str) -> None:
    info = {"jsonVersion": version, "outcome": "success"}
    rows = [
        fields(version, **changes),
        fields(version, platform="watchOS"),
        fields(version, platform="iOS", reality="simulated"),
    ]
    (phone,) = parse_devices(json.dumps({"info": info, "result": {"devices": rows}}))
    assert (phone.udid, phone.model, phone.system) == ("U", "iPhone 15 Pro", "18.1")
    assert phone.state == state
    assert bool(phone.remedy) == (state != "ready")


def test_a_third_shape_is_refused() -> None:
    with pytest.raises(RunFailedError, match="devices"):
        parse_devices('{"result": {"devices": [{"name": "x"}]}}')
