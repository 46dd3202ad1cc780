"""Virtual phones: made, started, stopped and listed; each is a folder and, running, one process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import Field

from mobilepack.cache import cache_folder
from mobilepack.contract.base import Contract, write_atomically
from mobilepack.errors import MissingError, RunFailedError, UsageError, near_misses
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.virtual import root as parts
from mobilepack.process import run, start_detached

DEFAULT_CPU = "cortex-a76"
_CONFIG, _ROOT, _LOCK, _LOG = "phone.json", "root", "running.lock", "log.txt"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
# adb takes odd ports from 5555 to 5585 for Android emulators and connects to them by itself.
_FIRST_PORT = 5700
_LAST_PORT = 5899
_START_S = 60.0
_STOP_S = 15.0
_WRITE_S = 2.0
_POLL_S = 0.1
_SUPERVISOR = "mobilepack.harness.virtual.supervisor"


class Phone(Contract):
    """A virtual phone's description, `phone.json`.

    Attributes:
        cpu: Which processor qemu emulates; it decides which kernels XNNPACK chooses.
        port: Of this machine's loopback, where its adbd answers.
    """

    name: str
    cpu: str
    port: int = Field(ge=1, le=65535)

    @property
    def serial(self) -> str:
        """How adb calls it."""
        return f"127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        """Where it lives."""
        return _folder() / self.name

    @property
    def running(self) -> bool:
        """Whether its process lives; the kernel knows, for that process holds a lock."""
        path = self.folder / _LOCK
        if not path.is_file():
            return False
        with path.open() as file:
            return _is_locked(file)


@dataclass(frozen=True, slots=True)
class Started:
    """A phone that runs.

    Attributes:
        seconds: How long it took; 0 if it ran already.
    """

    phone: Phone
    seconds: float


def phones() -> tuple[Phone, ...]:
    """Return every phone, by name."""
    folders = sorted(_folder().glob(f"*/{_CONFIG}"))
    return tuple(Phone.read(path) for path in folders)


def phone(name: str) -> Phone:
    """Return a phone by name.

    Raises:
        MissingError: There is none of that name.
    """
    path = _folder() / name / _CONFIG
    if not _NAME.fullmatch(name) or not path.is_file():
        known = [one.name for one in phones()]
        raise MissingError(
            "no-virtual-phone",
            f"there is no virtual phone {name!r}",
            why=near_misses(name, known) if known else "none was created",
            next="mobilepack virtual create NAME",
        )
    return Phone.read(path)


def create(name: str, cpu: str = DEFAULT_CPU) -> Phone:
    """Make a phone; nothing runs yet.

    Raises:
        UsageError: The name is taken or cannot be one, or qemu has no such processor.
        MissingError: Its parts cannot be fetched.
    """
    if not _NAME.fullmatch(name):
        why = "a name has up to 31 lower-case letters, digits and hyphens"
        raise UsageError("phone-name", f"cannot name a phone {name!r}", why=why, next="rename it")
    _check_cpu(cpu)
    template = parts.template()
    folder = _folder() / name
    _folder().mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError as err:
        why = f"{folder} exists"
        advice = f"mobilepack virtual start {name}, or choose another name"
        raise UsageError("phone-exists", f"{name} exists", why=why, next=advice) from err
    try:
        shutil.copytree(template, folder / _ROOT, symlinks=True)
        parts.write_properties(folder / _ROOT, name, cpu)
        made = Phone(name=name, cpu=cpu, port=_free_port())
        write_atomically(folder / _CONFIG, made.to_json())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return made


def start(one: Phone, adb: Adb) -> Started:
    """Start a phone and wait until adb reaches it.

    Raises:
        RunFailedError: It does not come up; the log's last line says why.
    """
    begin = time.monotonic()
    if one.running:
        adb.connect(one.serial)
        return Started(one, 0.0)
    tools, counter = parts.emulator_root(), parts.counter() / parts.COUNTER
    shutil.copy2(counter, one.folder / _ROOT / "system" / parts.COUNTER)
    log = one.folder / _LOG
    log.write_bytes(b"")
    argv = (
        *(sys.executable, "-P", "-m", _SUPERVISOR),
        *(str(one.folder / _ROOT), str(tools), str(parts.emulator()), parts.ADBD),
        *(one.cpu, str(one.port), str(one.folder / _LOCK)),
    )
    process = start_detached(argv, log=log)
    try:
        _wait_until_up(one, adb, process, begin + _START_S)
    except BaseException:
        stop(one, adb)
        raise
    return Started(one, time.monotonic() - begin)


def _wait_until_up(one: Phone, adb: Adb, process: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(process, os.WNOHANG)[0] != 0:
                break
        with contextlib.suppress(RunFailedError):
            adb.connect(one.serial)
            if adb.on(one.serial).ask(["getprop", "ro.mobilepack.virtual"]) == "1":
                return
        time.sleep(_POLL_S)
    lines = (one.folder / _LOG).read_text(errors="replace").splitlines()
    raise RunFailedError(
        "phone-start",
        f"the virtual phone {one.name} does not start",
        why=lines[-1] if lines else "it says nothing",
        next=f"read {one.folder / _LOG}; it needs Linux 6.7 with unprivileged user namespaces",
    )


def stop(one: Phone, adb: Adb) -> None:
    """Stop a phone; no error if it does not run.

    Raises:
        RunFailedError: It does not end.
    """
    adb.disconnect(one.serial)
    path = one.folder / _LOCK
    pid = _supervisor(one)
    deadline = time.monotonic() + _STOP_S
    # Only the process that ran when we were asked: somebody may start the phone again meanwhile.
    while pid.isdecimal() and one.running and path.read_text().strip() == pid:
        late = time.monotonic() > deadline - _STOP_S / 2
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL if late else signal.SIGTERM)
        if time.monotonic() > deadline:
            why = f"process {pid} lives"
            advice = f"kill -9 {pid}"
            raise RunFailedError("phone-stop", f"cannot stop {one.name}", why=why, next=advice)
        time.sleep(_POLL_S)


def _supervisor(one: Phone) -> str:
    """Return the number of the process behind a phone, empty if it does not run."""
    deadline = time.monotonic() + _WRITE_S
    while one.running:
        pid = (one.folder / _LOCK).read_text().strip()
        if pid.isdecimal() or time.monotonic() > deadline:
            return pid
        time.sleep(_POLL_S)  # it holds the lock and has not written its number yet
    return ""


def delete(one: Phone, adb: Adb) -> None:
    """Stop a phone and remove all of it.

    Raises:
        RunFailedError: It does not end.
    """
    stop(one, adb)
    shutil.rmtree(one.folder)


def _check_cpu(cpu: str) -> None:
    done = run((str(parts.emulator()), "-cpu", "help"), timeout_s=30)
    known = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    if cpu not in known:
        raise UsageError(
            "unknown-cpu",
            f"qemu has no processor {cpu!r}",
            why=near_misses(cpu, known),
            next="mobilepack virtual create NAME --cpu cortex-a53",
        )


def _free_port() -> int:
    taken = {one.port for one in phones()}
    for port in range(_FIRST_PORT, _LAST_PORT + 1):
        if port in taken:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    why = f"ports {_FIRST_PORT} to {_LAST_PORT} are all taken"
    advice = "delete phones: mobilepack virtual delete NAME"
    raise RunFailedError("no-port", "there is no port for a phone", why=why, next=advice)


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _folder() -> Path:
    return cache_folder("virtual-phones")
