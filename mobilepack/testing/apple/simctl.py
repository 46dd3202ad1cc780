"""`xcrun simctl`: each function is one subcommand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mobilepack.testing.apple import bundles
from mobilepack.testing.apple.answers import (
    LAUNCH_ERROR,
    POSIX_ERROR,
    SIM_ERROR,
    WRONG_STATE,
    EndError,
    refused,
)
from mobilepack.testing.apple.grammar import Words
from mobilepack.testing.apple.state import Machine, State, new_id, opened

RUNTIME = "com.apple.CoreSimulator.SimRuntime.iOS-26-5"
RUNTIME_NAME = "iOS 26.5"
TYPES = {
    "com.apple.CoreSimulator.SimDeviceType.iPhone-17-Pro": "iPhone 17 Pro",
    "com.apple.CoreSimulator.SimDeviceType.iPhone-17": "iPhone 17",
    "com.apple.CoreSimulator.SimDeviceType.iPad-Pro-11-inch-M5": "iPad Pro 11-inch (M5)",
}
_PREFIX = "SIMCTL_CHILD_"


def run(folder: Path, name: str, words: Words) -> int:
    """Carry out a subcommand; return the exit status.

    Raises:
        EndError: It cannot be carried out.
    """
    if name == "launch":
        return _launch(folder, words)
    with opened(folder) as state:
        hang = name == "bootstatus" and "boot-hangs" in state.faults
        if not hang:
            _COMMANDS[name](state, words)
    while hang:
        time.sleep(1)
    return 0


def _one(state: State, given: str) -> str:
    if given == "booted":
        booted = [udid for udid, one in _simulators(state).items() if one.state == "Booted"]
        if not booted:
            raise refused(WRONG_STATE, SIM_ERROR, 405, "No devices are booted.")
        return booted[0]
    if given not in _simulators(state):
        raise EndError(164, f"Invalid device: {given}")
    return given


def _simulators(state: State) -> dict[str, Machine]:
    return {udid: one for udid, one in state.machines.items() if one.kind == "simulator"}


def _list(state: State, words: Words) -> None:
    if not words.flags & {"-j", "--json"}:
        raise EndError(1, "this stand-in lists as JSON only")
    here = "no-runtime" not in state.faults
    rows = [
        {
            "dataPath": str(state.folder / udid / "data"),
            "deviceTypeIdentifier": one.type,
            "isAvailable": here,
            "name": one.name,
            "state": one.state,
            "udid": udid,
        }
        for udid, one in _simulators(state).items()
    ]
    runtime = {
        "identifier": RUNTIME,
        "isAvailable": True,
        "name": RUNTIME_NAME,
        "platform": "iOS",
        "supportedDeviceTypes": _types(),
        "version": RUNTIME_NAME.removeprefix("iOS "),
    }
    document = {
        "devices": {RUNTIME: rows},
        "devicetypes": _types(),
        "pairs": {},
        "runtimes": [runtime] if here else [],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _types() -> list[dict[str, str]]:
    return [
        {"identifier": key, "name": name, "productFamily": name.split()[0]}
        for key, name in TYPES.items()
    ]


def _create(state: State, words: Words) -> None:
    name, wanted, *runtime = words.positional
    known = {key: key for key in TYPES} | {title: key for key, title in TYPES.items()}
    if wanted not in known:
        raise EndError(161, f"Invalid device type: {wanted}")
    if "no-runtime" in state.faults or (runtime and runtime[0] not in (RUNTIME, RUNTIME_NAME)):
        raise EndError(162, f"Invalid runtime: {runtime[0] if runtime else ''}")
    udid = new_id()
    state.machines[udid] = Machine(name, "simulator", type=known[wanted])
    sys.stdout.write(udid + "\n")


def _boot(state: State, words: Words) -> None:
    one = state.machines[_one(state, words.positional[0])]
    if one.state == "Booted":
        text = "Unable to boot device in current state: Booted"
        raise refused(WRONG_STATE, SIM_ERROR, 405, text)
    one.state = "Booted"


def _bootstatus(state: State, words: Words) -> None:
    one = state.machines[_one(state, words.positional[0])]
    if one.state == "Booted":
        sys.stdout.write("Device already booted, nothing to do.\n")
    elif "-b" in words.flags:
        one.state = "Booted"
        sys.stdout.write("Finished.\n")
    else:
        sys.stdout.write("Waiting on boot.\n")


def _install(state: State, words: Words) -> None:
    udid = _one(state, words.positional[0])
    _need_booted(state.machines[udid], "install")
    bundles.install(state, udid, Path(words.positional[1]))


def _uninstall(state: State, words: Words) -> None:
    state.machines[_one(state, words.positional[0])].apps.pop(words.positional[1], None)


def _container(state: State, words: Words) -> None:
    one = state.machines[_one(state, words.positional[0])]
    app = one.apps.get(words.positional[1])
    if app is None:
        raise refused(2, POSIX_ERROR, 2, "No such file or directory")
    kind = words.positional[2] if len(words.positional) > 2 else "app"
    path = app.data if kind == "data" else app.bundle
    gone = "container-gone" in state.faults
    sys.stdout.write((f"{path}-gone" if gone else path) + "\n")


def _terminate(state: State, words: Words) -> None:
    one = state.machines[_one(state, words.positional[0])]
    process = one.running.pop(words.positional[1], None)
    if process is None:
        raise refused(3, "NSPOSIXErrorDomain", 3, "found nothing to terminate")
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _shutdown(state: State, words: Words) -> None:
    one = state.machines[_one(state, words.positional[0])]
    if one.state == "Shutdown":
        text = "Unable to shutdown device in current state: Shutdown"
        raise refused(WRONG_STATE, SIM_ERROR, 405, text)
    one.state = "Shutdown"


def _delete(state: State, words: Words) -> None:
    for given in words.positional:
        udid = _one(state, given)
        del state.machines[udid]
        shutil.rmtree(state.folder / udid, ignore_errors=True)


def _need_booted(one: Machine, what: str) -> None:
    if one.state != "Booted":
        text = f"Unable to {what} in current state: {one.state}"
        raise refused(WRONG_STATE, SIM_ERROR, 405, text)


def _launch(folder: Path, words: Words) -> int:
    given, name = words.positional
    console = bool(words.flags & {"--console", "--console-pty"})
    with opened(folder) as state:
        udid = _one(state, given)
        one = state.machines[udid]
        _need_booted(one, "lookup")
        app = one.apps.get(name)
        if app is None:
            text = f"Simulator device failed to launch {name}."
            raise refused(4, LAUNCH_ERROR, 4, text)
        env = {k.removeprefix(_PREFIX): v for k, v in os.environ.items() if k.startswith(_PREFIX)}
        env["SIMULATOR_UDID"] = udid
        child = bundles.start(app, words.app, env, output=console)
        one.running[name] = child.pid
        faults = state.faults
    sys.stdout.write(f"{name}: {child.pid}\n")
    sys.stdout.flush()
    if not console:
        return 0
    bundles.relay(child, faults)
    bundles.report_crash(child, app, Path(os.environ["HOME"]))
    return 0  # simctl's own status, whatever became of the app


_COMMANDS: dict[str, Callable[[State, Words], None]] = {
    "list": _list,
    "create": _create,
    "boot": _boot,
    "bootstatus": _bootstatus,
    "install": _install,
    "uninstall": _uninstall,
    "get_app_container": _container,
    "terminate": _terminate,
    "shutdown": _shutdown,
    "delete": _delete,
}
