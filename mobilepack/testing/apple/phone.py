"""An iPhone as the lab's programs see it: found by its UDID, with apps that run on their own."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from mobilepack.testing.apple import bundles
from mobilepack.testing.apple.state import App, Machine, State, opened


def iphones(state: State) -> dict[str, Machine]:
    """Return the iPhones that are plugged in, by UDID."""
    return {udid: one for udid, one in state.machines.items() if one.kind == "iphone"}


def kill(one: Machine, name: str) -> bool:
    """End an app; whether it ran."""
    process = one.running.pop(name, None)
    with contextlib.suppress(ProcessLookupError):
        if process is not None:
            os.kill(process, signal.SIGKILL)
            return True
    return False


def detach(folder: Path, udid: str, name: str, arguments: list[str]) -> int:
    """Start an app that outlives its starter, as on a phone; return its process number."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        try:
            _look_after(folder, udid, name, arguments, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        return int(pipe.read())


def _look_after(folder: Path, udid: str, name: str, arguments: list[str], tell: int) -> None:
    """Start it, say its number, and wait for its end."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    with opened(folder) as state:
        one, faults = state.machines[udid], state.faults
        app = one.apps[name]
        child = bundles.start(app, arguments, {}, output=True)
        one.running[name] = child.pid
    os.write(tell, str(child.pid).encode())
    os.close(tell)
    bundles.relay(child, faults)
    bundles.report_crash(child, app, folder / udid)


def crashes(folder: Path, udid: str) -> list[str]:
    """Return the names of the phone's crash reports."""
    return sorted(path.name for path in (folder / udid / bundles.REPORTS).glob("*.ips"))


def data(app: App, path: str) -> Path:
    """Return where a path of an app's container lies."""
    return Path(app.data) / path
