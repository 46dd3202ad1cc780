"""adb's words, without a device: a program that says what adb says stands in for it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.errors import MissingError, RunFailedError
from mobilepack.harness.android.adb import Adb, find_adb


def saying(folder: Path, *, stdout: str = "", stderr: str = "", status: int = 0) -> Adb:
    """Return adb whose program prints and ends as told."""
    (folder / "out").write_text(stdout)
    (folder / "err").write_text(stderr)
    program = folder / "adb"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> "{folder}/asked"\ncat "{folder}/out"\n'
        f'cat "{folder}/err" >&2\nexit {status}\n'
    )
    program.chmod(0o755)
    return Adb(str(program), "emulator-5554")


LISTED = """List of devices attached
14141JEC204776         device usb:1-4 product:oriole model:Pixel_6 device:oriole transport_id:1
R5CT10XXXXX            unauthorized usb:3-1 transport_id:4
192.168.1.20:5555      offline transport_id:9
0123456789ABCDEF       no permissions (missing udev rules? user is in the plugdev group); see [x]

"""


def test_the_list_of_devices(tmp_path: Path) -> None:
    found = saying(tmp_path, stdout=LISTED).devices()
    states = [(one.serial, one.state) for one in found]
    assert states == [
        ("14141JEC204776", "device"),
        ("R5CT10XXXXX", "unauthorized"),
        ("192.168.1.20:5555", "offline"),
        ("0123456789ABCDEF", "no permissions"),
    ]
    assert found[0].properties["model"] == "Pixel_6"
    assert found[0].remedy == ""
    assert "allow USB debugging" in found[1].remedy
    assert "udev" in found[3].remedy


# What adb 34 to 36 print (AOSP packages/modules/adb: client/adb_client.cpp, file_sync_client.cpp).
SAID = [
    (
        "adb: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set",
        "device-unauthorized",
    ),
    ("adb: device offline", "device-offline"),
    ("adb: device '14141JEC204776' not found", "device-gone"),
    ("adb: no devices/emulators found", "device-gone"),
    ("error: closed", "device-gone"),
    (
        "adb: error: failed to copy 'a' to 'b': remote couldn't create file: No space left",
        "device-full",
    ),
    ("adb: error: failed to copy 'a' to 'b': remote Permission denied", "device-denied"),
    ("* failed to start daemon\nerror: cannot connect to daemon", "adb-unreachable"),
    ("something that nobody has seen", "adb-failed"),
]


@pytest.mark.parametrize(("said", "code"), SAID)
def test_what_adb_says_becomes_a_code_and_advice(tmp_path: Path, said: str, code: str) -> None:
    adb = saying(tmp_path, stderr=said, status=1)
    with pytest.raises(RunFailedError) as failure:
        adb.push(tmp_path / "out", "/data/local/tmp/x", timeout_s=10)
    assert failure.value.code == code
    assert said.splitlines()[-1] in failure.value.why
    assert failure.value.next


def test_connect_does_not_trust_the_exit_status(tmp_path: Path) -> None:
    said = "failed to connect to '10.0.0.1:5555': Connection refused"
    with pytest.raises(RunFailedError) as failure:
        saying(tmp_path, stdout=said).connect("10.0.0.1:5555")
    assert failure.value.code == "device-unreachable"


def test_a_command_that_fails_on_the_device_is_no_failure_of_adb(tmp_path: Path) -> None:
    done = saying(tmp_path, stderr="ls: x: No such file or directory", status=1).shell(["ls", "x"])
    assert done.returncode == 1
    assert saying(tmp_path, stdout="12\n", status=1).ask(["stat", "x"]) == ""


def test_pull_wants_the_file_and_not_the_word(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError):
        saying(tmp_path, stdout="1 file pulled").pull("/x", tmp_path / "absent", timeout_s=10)


@given(words=st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_words_reach_the_device_as_they_are(words: list[str]) -> None:
    line = Adb("adb", "s").shell_argv(words)[-1]
    assert shlex.split(line) == words


def test_server_and_device_are_named(tmp_path: Path) -> None:
    adb = Adb("adb", "s 1", "lab-7", 5038)
    expected = ("adb", "-H", "lab-7", "-P", "5038", "-s", "s 1", "push", "a", "b")
    assert adb.argv("push", "a", "b") == expected


def test_the_program_is_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEPACK_ADB", "/opt/adb")
    assert find_adb() == "/opt/adb"


def test_an_absent_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot start"):
        Adb(str(tmp_path / "absent")).devices()
