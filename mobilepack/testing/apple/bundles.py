"""Installing app bundles, and running what is in them."""

from __future__ import annotations

import plistlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mobilepack.testing.apple.answers import POSIX_ERROR, refused
from mobilepack.testing.apple.state import App, State, new_id

Process = subprocess.Popen[bytes]
REPORTS = "Library/Logs/DiagnosticReports"
_LOADED = b'"loaded"'


def identifier(app: Path) -> str:
    """Return a bundle's identifier.

    Raises:
        EndError: It is no bundle.
    """
    info = app / "Info.plist"
    if not info.is_file():
        text = "Simulator device failed to install the application.\nMissing bundle ID."
        raise refused(22, POSIX_ERROR, 22, text)
    return str(plistlib.loads(info.read_bytes())["CFBundleIdentifier"])


def install(state: State, udid: str, app: Path) -> str:
    """Copy a bundle; its data container stays if it had one. Return its identifier."""
    name = identifier(app)
    bundle = state.bundle(udid) / app.name
    shutil.copytree(app, bundle, symlinks=True)
    apps = state.machines[udid].apps
    data = apps[name].data if name in apps else str(state.container(udid))
    apps[name] = App(str(bundle), data)
    return name


def executable(app: App) -> Path:
    """Return the program in a bundle."""
    bundle = Path(app.bundle)
    info = plistlib.loads((bundle / "Info.plist").read_bytes())
    return bundle / str(info["CFBundleExecutable"])


def start(app: App, arguments: list[str], env: dict[str, str], *, output: bool) -> Process:
    """Run an app in its container; a bare environment, as the system gives one."""
    own = env | {"HOME": app.data, "CFFIXED_USER_HOME": app.data, "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        [str(executable(app)), *arguments],
        env=own,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output else subprocess.DEVNULL,
        stderr=subprocess.STDOUT if output else subprocess.DEVNULL,
    )


def relay(child: Process, faults: tuple[str, ...]) -> int:
    """Pass a child's output on until it ends; return its exit status."""
    if child.stdout is None:
        raise AssertionError("the child was started without a pipe")
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    for line in child.stdout:
        if "silent" not in faults:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
        if "jetsam" in faults and _LOADED in line:
            child.kill()
    return child.wait()


def report_crash(child: Process, app: App, home: Path) -> None:
    """Leave a report as the system does when an app dies by a signal (TN3126 names the fields)."""
    if child.returncode >= 0 or child.returncode == -signal.SIGKILL:
        return
    name = executable(app).name
    number = -child.returncode
    text = signal.Signals(number).name
    folder = home / REPORTS
    folder.mkdir(parents=True, exist_ok=True)
    head = f'{{"app_name":"{name}","bug_type":"309","incident_id":"{new_id()}"}}'
    body = (
        f'{{"pid": {child.pid}, "procName": "{name}", '
        f'"exception": {{"type": "EXC_CRASH", "signal": "{text}"}}, '
        f'"termination": {{"namespace": "SIGNAL", "code": {number}, '
        f'"indicator": "{signal.strsignal(number)}: {number}"}}}}'
    )
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    (folder / f"{name}-{stamp}.ips").write_text(f"{head}\n{body}\n")
