"""Transcripts: what is private is replaced, what is recorded replays, what was not asked fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.errors import MissingError, RunFailedError
from mobilepack.harness.ios.devicectl import Devicectl
from mobilepack.harness.ios.simulator import Simctl
from mobilepack.harness.ios.tool import Tool
from mobilepack.harness.ios.transcript import Scrubber, Transcript
from mobilepack.testing.apple.install import StandInXcode
from mobilepack.testing.apple.replay import UNSEEN, replaying

UDID = "00008130-001C2D3E4F50001A"


@pytest.fixture
def transcript(xcode: StandInXcode, tmp_path: Path, run: Callable[..., Any]) -> Path:
    """Record the stand-in, as a Mac would be."""
    xcode.add_iphone(UDID, "Jo's iPhone")
    out = tmp_path / "xcode.json"
    done = run("ios", "record", out)
    assert done.code == 0, done.err
    assert "synthetic" in done.out
    assert [one.kind for one in xcode.machines().values()] == ["iphone"]
    return out


def test_a_recording_replays_what_it_heard_and_nothing_else(
    transcript: Path, tmp_path: Path
) -> None:
    xcrun = Tool((str(replaying(tmp_path / "replay", transcript)),))
    (phone,) = Devicectl(xcrun.under("devicectl")).phones()
    assert (phone.udid, phone.name) == ("00000000-0000000000000001", "a device")
    simctl = Simctl(xcrun.under("simctl"))
    udid = simctl.create()
    simctl.boot(udid)
    simctl.boot(udid)
    with pytest.raises(RunFailedError, match="in current state: Booted"):
        simctl.tool.run("cannot boot", "boot", udid)
    with pytest.raises(RunFailedError, match="has no answer to: simctl erase all"):
        simctl.tool.run("cannot erase", "erase", "all")
    assert xcrun.attempt("simctl", "erase", "all").returncode == UNSEEN


def test_every_refusal_is_recorded_with_its_status(transcript: Path) -> None:
    calls = Transcript.read(transcript).calls
    found = [(call.argv[1], call.returncode) for call in calls if call.returncode]
    assert found == [
        ("device", 1),
        ("boot", 164),
        ("launch", 64),
        ("boot", 149),
        ("get_app_container", 2),
        ("launch", 4),
        ("terminate", 3),
        ("shutdown", 149),
    ]


def test_nothing_private_is_written(transcript: Path, xcode: StandInXcode) -> None:
    text = transcript.read_text()
    for private in (UDID, "Jo's iPhone", str(Path.home())):
        assert private not in text


def test_the_same_stays_the_same() -> None:
    scrub = Scrubber(Path("/Users/jo"), "jo")
    row = {
        "identifier": UDID,
        "deviceProperties": {"name": "Jo"},
        "hardwareProperties": {"ecid": 7},
    }
    found = json.loads(scrub.text(json.dumps(row)))
    assert found == {
        "identifier": "00000000-0000000000000001",
        "deviceProperties": {"name": "a device"},
        "hardwareProperties": {},
    }
    said = scrub.text(f"/Users/jo/x {UDID} by jo, not john, {'a1' * 20}")
    assert said == f"/Users/me/x 00000000-0000000000000001 by me, not john, {2:040d}"
    assert scrub.argv(["list", "--json-output", "x/y", "mobilepack-77"]) == (
        *("list", "--json-output", "{file}", "mobilepack-1"),
    )


def test_recording_needs_a_mac(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("MOBILEPACK_XCRUN", raising=False)
    done = run("ios", "record", "x.json")
    assert done.code == MissingError.exit_code
    assert "no-xcode" in done.err
