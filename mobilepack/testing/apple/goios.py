"""`ios` of go-ios 1.2.0: what it prints and how it exits.

Texts are those that the real program printed against `FakeUsbmuxd`, but for a launch that works and
one that a locked phone refuses: those are ours.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from mobilepack.testing.apple import bundles, phone
from mobilepack.testing.apple.answers import EndError
from mobilepack.testing.apple.grammar import Words
from mobilepack.testing.apple.state import Machine, State, opened

USAGE = "Usage:\n  ios --version | version [options]"
_NO_SERVICE = (
    'instruments service "com.apple.instruments.remoteserver.DVTSecureSocketProxy" unavailable on'
    " {udid}: this device runs iOS 18.5.0 and needs an active tunnel — run `ios tunnel start`"
)
_LOCKED = (
    "The request was denied by service delegate (SBMainWorkspace) for reason: Locked"
    ' ("Unable to launch {app} because the device was not, or could not be, unlocked")'
)


def run(folder: Path, name: str, words: Words, raw: list[str]) -> int:
    """Carry out a subcommand; return the exit status.

    Raises:
        EndError: It cannot be carried out.
    """
    with opened(folder) as state:
        if "no-usbmuxd" in state.faults:
            text = "dial unix /var/run/usbmuxd: connect: no such file or directory"
            raise _failed("failed getting device list", text)
        if name == "list":
            return _list(state)
        udid = words.values.get("--udid") or next(iter(phone.iphones(state)), "")
        one = phone.iphones(state).get(udid)
        if one is None:
            text = f"Device '{udid}' not found. Is it attached to the machine?"
            raise _failed(f"Device not found: {udid}", text)
        if name == "crash ls":
            return _crashes(phone.crashes(folder, udid), words)
        if name != "launch":
            _COMMANDS[name](state, udid, words)
            return 0
        _check_launch(state, udid, words)
        if "--kill-existing" in words.flags:
            phone.kill(one, words.positional[0])
    app_words = [word.removeprefix("--arg=") for word in raw if word.startswith("--arg=")]
    process = phone.detach(folder, udid, words.positional[0], app_words)
    _log("INFO", "Process launched", pid=process)
    return 0


def _log(level: str, what: str, **more: object) -> None:
    entry = {"time": "2026-11-21T12:00:00Z", "level": level, "msg": what}
    sys.stderr.write(json.dumps(entry | more) + "\n")


def _failed(what: str, why: str) -> EndError:
    return EndError(1, json.dumps({"level": "ERROR", "msg": what, "err": why}))


def _list(state: State) -> int:
    rows = [
        {"Udid": udid, "ProductType": one.type, "ProductVersion": "18.5", "ConnectionType": "USB"}
        for udid, one in phone.iphones(state).items()
    ]
    sys.stdout.write(json.dumps({"deviceList": rows}) + "\n")
    return 0


def _crashes(names: list[str], words: Words) -> int:
    pattern = (words.positional or ["*"])[0]
    found = fnmatch.filter(names, pattern)
    sys.stdout.write(json.dumps({"files": found, "length": len(found)}) + "\n")
    return 0


def _check_launch(state: State, udid: str, words: Words) -> None:
    name = words.positional[0]
    _check_tunnel(state, udid)
    if "locked" in state.faults:
        raise _failed("opening app failed", _LOCKED.format(app=name))
    if name not in state.machines[udid].apps:
        raise _failed("opening app failed", f'"{name}" is either not installed')


def _check_tunnel(state: State, udid: str) -> None:
    if "tunnel-down" in state.faults:
        _log("WARN", "go-ios agent is not running.")
        raise _failed("processcontrol failed", _NO_SERVICE.format(udid=udid))


def _install(state: State, udid: str, words: Words) -> None:
    bundles.install(state, udid, Path(words.values["--path"]))


def _kill(state: State, udid: str, words: Words) -> None:
    _check_tunnel(state, udid)
    name = words.positional[0]
    if not phone.kill(state.machines[udid], name):
        raise _failed(f"{name} not running", "")


def _inside(one: Machine, words: Words, key: str) -> Path:
    app = one.apps.get(words.values.get("--app", ""))
    if app is None:
        raise _failed("fsync: connect afc service failed", "ApplicationLookupFailed")
    return phone.data(app, words.values[key])


def _push(state: State, udid: str, words: Words) -> None:
    there = _inside(state.machines[udid], words, "--dstPath")
    if not there.parent.is_dir():
        raise _failed("fsync: push failed", "error opening file: afc error code: 8")
    shutil.copyfile(words.values["--srcPath"], there)


def _pull(state: State, udid: str, words: Words) -> None:
    there = _inside(state.machines[udid], words, "--srcPath")
    if not there.is_file():
        raise _failed("fsync: pull failed", "error getting file info: afc error code: 8")
    shutil.copy(there, words.values["--dstPath"])


def _make(state: State, udid: str, words: Words) -> None:
    _inside(state.machines[udid], words, "--path").mkdir(parents=True, exist_ok=True)


_COMMANDS: dict[str, Callable[[State, str, Words], None]] = {
    "install": _install,
    "kill": _kill,
    "fsync push": _push,
    "fsync pull": _pull,
    "fsync mkdir": _make,
}
