"""`xcrun devicectl`: each function is one subcommand; results go to `--json-output`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mobilepack.testing.apple import bundles, grammar
from mobilepack.testing.apple.answers import EndError
from mobilepack.testing.apple.grammar import Words
from mobilepack.testing.apple.state import App, Machine, State, opened

Answer = dict[str, object]
Process = subprocess.Popen[bytes]
_DATA = "appDataContainer"
# Texts and codes: public issues of flutter/flutter and build logs quote them (docs/devices/ios.md).
_UNKNOWN_DEVICE = (
    "ERROR: The specified device was not found. (com.apple.dt.CoreDeviceError error 1000 (0x3E8))"
)
_NO_CONNECTION = (
    "ERROR: A connection to this device could not be established."
    " (com.apple.dt.CoreDeviceError error 1011 (0x3F3))"
)
_LOCKED = (
    "ERROR: The application failed to launch. (com.apple.dt.CoreDeviceError error 10002 (0x2712))\n"
    "       The request was denied by service delegate (SBMainWorkspace) for reason: Locked"
    ' ("Unable to launch {app} because the device was not, or could not be, unlocked").'
    " (FBSOpenApplicationErrorDomain error 7 (0x07))"
)
_NO_APP = (
    "ERROR: The application failed to launch. (com.apple.dt.CoreDeviceError error 10002 (0x2712))\n"
    '       The requested application "{app}" is either not installed, or the provider for it'
    " returned nil (FBSApplicationLibrary). (FBSOpenApplicationServiceErrorDomain error 4 (0x04))"
)
_NO_FILE = (
    "ERROR: Failed to transfer the file from the device."
    " (com.apple.dt.CoreDeviceError error 7000 (0x1B58))\n"
    '       The file "{path}" could not be opened because there is no such file.'
)


def run(folder: Path, name: str, words: Words) -> int:
    """Carry out a subcommand; return the exit status.

    Raises:
        EndError: It cannot be carried out.
    """
    with opened(folder) as state:
        version = int(grammar.facts(state.xcode)["json_version"])
        if name == "list devices":
            _write(words, name, version, {"devices": _rows(state, version)})
            return 0
        one = _device(state, words)
        if name != "device process launch":
            _write(words, name, version, _COMMANDS[name](state, one, words))
            return 0
        child, app = _start(state, one, words)
        one.running[words.positional[0]] = child.pid
        faults = state.faults
    process = {"processIdentifier": child.pid, "executable": f"file://{app.bundle}"}
    result: Answer = {"process": process}
    _write(words, name, version, result)
    return _follow(child, words, faults)


def _write(words: Words, name: str, version: int, result: Answer) -> None:
    path = words.values.get("--json-output") or words.values.get("-j")
    if path is None:
        return
    info = {
        "arguments": ["devicectl", *name.split()],
        "commandType": "devicectl." + name.replace(" ", "."),
        "environment": {},
        "jsonVersion": version,
        "outcome": "success",
        "version": "1.0",
    }
    Path(path).write_text(json.dumps({"info": info, "result": result}, indent=2))


def _rows(state: State, version: int) -> list[Answer]:
    kinds = ("iphone", "simulator") if version >= 5 else ("iphone",)  # facts/ios.md: Xcode 27
    every = [(udid, one) for udid, one in state.machines.items() if one.kind in kinds]
    return [_row(udid, one, state, version) for udid, one in every]


def _row(udid: str, one: Machine, state: State, version: int) -> Answer:
    phone = one.kind == "iphone"
    hardware: Answer = {
        "deviceType": "iPhone",
        "marketingName": "iPhone 15 Pro" if phone else one.name,
        "platform": "iOS" if phone else "iOS Simulator",
        "productType": one.type,
        "reality": "physical" if phone else "simulated",
        "udid": udid,
    }
    properties: Answer = {
        "developerModeStatus": "enabled",
        "name": one.name,
        "osVersionNumber": "18.5",
    }
    down = "unavailable" if "tunnel-down" in state.faults else "disconnected"
    connection: Answer = {
        "pairingState": "paired",
        "transportType": "wired",
        "tunnelState": down if phone else "connected",
    }
    row: Answer = {"capabilities": [], "identifier": f"CORE-{udid}", "visibilityClass": "default"}
    if version >= 5:
        parts = {"hardware": hardware, "state": properties, "connection": connection}
        return row | {"properties": parts}
    return row | {
        "hardwareProperties": hardware,
        "deviceProperties": properties,
        "connectionProperties": connection,
    }


def _device(state: State, words: Words) -> Machine:
    given = words.values["--device"].removeprefix("CORE-")
    one = state.machines.get(given)
    if one is None or one.kind != "iphone":
        raise EndError(1, _UNKNOWN_DEVICE)
    if "tunnel-down" in state.faults:
        raise EndError(1, _NO_CONNECTION)
    return one


def _install(state: State, one: Machine, words: Words) -> Answer:
    udid = next(udid for udid, machine in state.machines.items() if machine is one)
    name = bundles.install(state, udid, Path(words.positional[0]))
    return {"installedApplications": [{"bundleID": name}]}


def _apps(state: State, one: Machine, words: Words) -> Answer:
    wanted = words.values.get("--bundle-id")
    names = [name for name in one.apps if wanted in (None, name)]
    return {"apps": [{"bundleIdentifier": name} for name in names]}


def _inside(one: Machine, words: Words, key: str) -> Path:
    app = one.apps.get(words.values.get("--domain-identifier", ""))
    if words.values["--domain-type"] != _DATA or app is None:
        raise EndError(1, _NO_FILE.format(path=words.values[key]))
    return Path(app.data) / words.values[key]


def _copy_to(state: State, one: Machine, words: Words) -> Answer:
    source, there = Path(words.values["--source"]), _inside(one, words, "--destination")
    there.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, there, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, there)
    return {}


def _copy_from(state: State, one: Machine, words: Words) -> Answer:
    there = _inside(one, words, "--source")
    if not there.is_file():
        raise EndError(1, _NO_FILE.format(path=words.values["--source"]))
    shutil.copyfile(there, words.values["--destination"])
    return {}


def _terminate(state: State, one: Machine, words: Words) -> Answer:
    process = int(words.values["--pid"])
    if process in one.running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return {"process": {"processIdentifier": process}}


def _start(state: State, one: Machine, words: Words) -> tuple[Process, App]:
    name = words.positional[0]
    app = one.apps.get(name)
    if app is None:
        raise EndError(1, _NO_APP.format(app=name))
    if "locked" in state.faults:
        raise EndError(1, _LOCKED.format(app=name))
    env = json.loads(words.values.get("-e") or words.values.get("--environment-variables") or "{}")
    return bundles.start(app, words.app, env, output="--console" in words.flags), app


def _follow(child: Process, words: Words, faults: tuple[str, ...]) -> int:
    sys.stdout.write(f"Launched application with {words.positional[0]} bundle identifier.\n")
    sys.stdout.flush()
    if "--console" not in words.flags:
        return 0
    sys.stdout.write("Waiting for the application to terminate...\n")
    sys.stdout.flush()
    status = bundles.relay(child, faults)
    if status < 0:
        sys.stdout.write(f"App terminated due to signal {-status}.\n")
        return 1
    return 0


_COMMANDS: dict[str, Callable[[State, Machine, Words], Answer]] = {
    "device install app": _install,
    "device info apps": _apps,
    "device copy to": _copy_to,
    "device copy from": _copy_from,
    "device process terminate": _terminate,
}
