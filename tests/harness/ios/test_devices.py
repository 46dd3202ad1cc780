"""`mobilepack devices` and `-d` with Apple's devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.commands.apple import apple_devices, apple_harness, apple_tools, is_apple
from mobilepack.errors import MissingError
from mobilepack.harness.ios.simulator import Simctl
from mobilepack.testing.apple.install import StandInXcode

UDID = "00008130-001C2D3E4F50001A"


def test_simulators_and_iphones_are_listed(xcode: StandInXcode, simctl: Simctl) -> None:
    udid = simctl.create("iPhone 17")
    xcode.add_iphone(UDID)
    rows, problems = apple_devices()
    assert problems == ()
    assert [(one.id, one.kind, one.state) for one in rows] == [
        ("simulator", "simulator", "ready"),
        (udid, "simulator", "stopped"),
        (UDID, "iphone", "ready"),
    ]
    assert rows[1].name.endswith("iOS 26.5")


def test_a_missing_runtime_is_shown_with_its_remedy(xcode: StandInXcode) -> None:
    xcode.install("no-runtime")
    rows, _ = apple_devices()
    assert (rows[0].state, rows[0].remedy) == ("no runtime", "xcodebuild -downloadPlatform iOS")


def test_without_tools_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("MOBILEPACK_XCRUN", raising=False)
    monkeypatch.delenv("MOBILEPACK_GO_IOS", raising=False)
    rows, problems = apple_devices()
    assert rows == ()
    assert "needs a Mac" in problems[0]
    assert "npm install -g go-ios" in problems[1]


def test_names_tell_apple_s_devices_from_others() -> None:
    names = ("simulator", "simulator:iPhone 16", UDID, "5B4C4E0B-0000-4000-8000-00000000A001")
    assert all(is_apple(name) for name in (*names, "a" * 40))
    assert not any(is_apple(name) for name in ("host", "14141JEC204776", "127.0.0.1:5700", "lab"))


def test_a_phone_that_is_not_there_is_named(xcode: StandInXcode) -> None:
    xcode.add_iphone(UDID)
    with pytest.raises(MissingError, match=f"did you mean '{UDID}'"):
        apple_harness(UDID[:-1] + "B", None, purpose="test")
    assert apple_harness(UDID, None, purpose="test").device.name == "iPhone 15 Pro, iOS 18.5"


def test_a_new_simulator_needs_an_app(xcode: StandInXcode) -> None:
    with pytest.raises(MissingError, match="no app was named"):
        apple_harness("simulator", None, purpose="test")


def test_doctor_says_what_leads_there(
    xcode: StandInXcode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apple_tools() == ("Xcode 26.6: simulators and iPhones", "")
    monkeypatch.delenv("MOBILEPACK_XCRUN")
    monkeypatch.setenv("PATH", "")
    found, todo = apple_tools()
    assert "no Xcode, and neither go-ios" in found
    assert "npm install -g go-ios" in todo
    monkeypatch.setenv("MOBILEPACK_GO_IOS", str(tmp_path / "ios"))
    found, todo = apple_tools()
    assert found.startswith(f"go-ios at {tmp_path / 'ios'}: iPhones")
    assert todo == ""
