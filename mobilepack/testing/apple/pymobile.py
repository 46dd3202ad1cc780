"""`pymobiledevice3` 11.45.0: what it prints and how it exits.

Texts are those that the real program printed against `FakeUsbmuxd`, but for a locked phone's
refusal to launch, which is ours.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from mobilepack.testing.apple import bundles, phone
from mobilepack.testing.apple.answers import EndError
from mobilepack.testing.apple.grammar import RefusedError, Words
from mobilepack.testing.apple.state import App, State, opened

USAGE = "Usage: pymobiledevice3 [OPTIONS] COMMAND [ARGS]..."
_NO_TUNNEL = (
    "Unable to connect to tunneld. Start one with `sudo python3 -m pymobiledevice3 remote tunneld`."
)
_NO_FILE = (
    "Opcode: GET_FILE_INFO failed with status: 8 for file: {path} (AFC status OBJECT_NOT_FOUND)."
)
_LOCKED = "Unable to launch {app} because the device was not, or could not be, unlocked"
_LAUNCH = "developer core-device launch-application"


def run(folder: Path, name: str, words: Words, raw: list[str]) -> int:
    """Carry out a subcommand; return the exit status.

    Raises:
        EndError: It cannot be carried out.
        RefusedError: Words that the stand-in has no use for.
    """
    with opened(folder) as state:
        if "no-usbmuxd" in state.faults:
            raise _failed("Failed to connect to usbmuxd socket. Make sure it's running.")
        if name == "usbmux list":
            return _list(state)
        udid = _udid(state, words)
        if name == "crash ls":
            sys.stdout.writelines(f"/{one}\n" for one in phone.crashes(folder, udid))
            return 0
        if name.startswith("developer") and "tunnel-down" in state.faults:
            raise _failed(_NO_TUNNEL)
        if name != _LAUNCH:
            _COMMANDS[name](state, udid, words)
            return 0
        child = _start(state, udid, words)
        faults = state.faults
    bundles.relay(child, faults)
    bundles.report_crash(child, _app(state, udid, words.positional[0]), folder / udid)
    return 0


def _failed(why: str) -> EndError:
    return EndError(1, f"2026-11-21 12:00:00 lab pymobiledevice3.__main__[1] ERROR {why}")


def _udid(state: State, words: Words) -> str:
    first = next(iter(phone.iphones(state)), "")
    udid = words.values.get("--udid") or os.environ.get("PYMOBILEDEVICE3_UDID") or first
    if udid not in phone.iphones(state):
        raise _failed(f"Device not found: usbmux has no device matching udid {udid}")
    return udid


def _list(state: State) -> int:
    rows = [
        {
            "ConnectionType": way,
            "DeviceClass": "iPhone",
            "DeviceName": one.name,
            "Identifier": udid,
            "ProductType": one.type,
            "ProductVersion": "18.5",
            "UniqueDeviceID": udid,
        }
        for udid, one in phone.iphones(state).items()
        for way in ("USB", "Network")
    ]
    sys.stdout.write(json.dumps(rows, indent=4) + "\n")
    return 0


def _app(state: State, udid: str, name: str) -> App:
    app = state.machines[udid].apps.get(name)
    if app is None:
        raise _failed(f"No app with bundle ID {name} is installed.")
    return app


def _start(state: State, udid: str, words: Words) -> bundles.Process:
    name = words.positional[0]
    app = _app(state, udid, name)
    if "--console" not in words.flags:
        raise RefusedError("the stand-in launches with --console alone")
    if "locked" in state.faults:
        raise _failed(_LOCKED.format(app=name))
    one = state.machines[udid]
    if "--no-kill-existing" not in words.flags:
        phone.kill(one, name)
    child = bundles.start(app, words.app, {}, output=True)
    one.running[name] = child.pid
    return child


def _install(state: State, udid: str, words: Words) -> None:
    bundles.install(state, udid, Path(words.positional[0]))


def _push(state: State, udid: str, words: Words) -> None:
    """Copy a file to a path or into a folder, a folder into a folder, which is made."""
    name, local, remote = words.positional
    source, there = Path(local), phone.data(_app(state, udid, name), remote)
    if source.is_dir():
        shutil.copytree(source, there / source.name, dirs_exist_ok=True)
        return
    if not there.parent.is_dir():
        raise _failed(_NO_FILE.format(path=remote))
    shutil.copy(source, there)


def _pull(state: State, udid: str, words: Words) -> None:
    name, remote, local = words.positional
    there = phone.data(_app(state, udid, name), remote)
    if not there.is_file():
        raise _failed(_NO_FILE.format(path=remote))
    shutil.copy(there, local)


def _kill(state: State, udid: str, words: Words) -> None:
    for name in words.positional:
        phone.kill(state.machines[udid], name)


_COMMANDS: dict[str, Callable[[State, str, Words], None]] = {
    "apps install": _install,
    "apps push": _push,
    "apps pull": _pull,
    "developer dvt pkill": _kill,
}
