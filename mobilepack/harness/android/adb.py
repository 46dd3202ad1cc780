"""adb, thin and always with a time limit.

A command line that a phone's shell reads is built of words that this module quotes one by one; the
words are ours (fixed names and checksums), never a file name or a property of a device.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mobilepack.errors import MissingError, RunFailedError
from mobilepack.process import Child, Finished, run

VARIABLE = "MOBILEPACK_ADB"
QUICK_S = 30.0
"""Limit of a command that does nothing long."""

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):[0-9]{1,5}")
_STATES = {
    "unauthorized": "unlock the phone and allow USB debugging for this computer",
    "offline": "plug it in again, or: adb reconnect offline",
    "authorizing": "wait a moment, then look at the phone",
    "connecting": "wait a moment and try again",
    "no permissions": "add a udev rule for the phone, or run adb as the user who owns it",
    "recovery": "boot the phone into Android",
    "sideload": "boot the phone into Android",
    "bootloader": "boot the phone into Android",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `adb devices -l`.

    Attributes:
        state: adb's word; `device` means ready.
        properties: `model`, `product`, `transport_id` and so on.
    """

    serial: str
    state: str
    properties: dict[str, str]

    @property
    def remedy(self) -> str:
        """What to do about its state, empty if it is ready."""
        return "" if self.state == "device" else _STATES.get(self.state, "restart the phone")


@dataclass(frozen=True, slots=True)
class Adb:
    """An adb server and one of its devices.

    Attributes:
        binary: The adb program.
        serial: The device; empty for commands to the server.
        host: Where the server runs, empty for this machine's.
        port: Of the server.
    """

    binary: str
    serial: str = ""
    host: str = ""
    port: int = 5037

    def on(self, serial: str) -> Adb:
        """Return the same server with one of its devices."""
        return replace(self, serial=serial)

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return a command line of adb."""
        host = ("-H", self.host) if self.host else ()
        port = ("-P", str(self.port))
        device = ("-s", self.serial) if self.serial else ()
        return (self.binary, *host, *port, *device, *words)

    def devices(self) -> tuple[Listed, ...]:
        """Return every device that the server knows, ready or not.

        Raises:
            RunFailedError: The server cannot be reached.
        """
        done = self._run(self.argv("devices", "-l"), QUICK_S)
        if done.returncode != 0:
            raise self.failed("list the devices", done)
        return tuple(_parse_listed(line) for line in done.stdout.splitlines()[1:] if line.strip())

    def connect(self, address: str) -> None:
        """Connect to a device over TCP; a stale connection to it is dropped first.

        Raises:
            RunFailedError: Nobody answers there.
        """
        self._run(self.argv("disconnect", address), QUICK_S)
        done = self._run(self.argv("connect", address), QUICK_S)
        if "connected to" not in done.stdout:  # adb ends with 0 either way
            raise self.failed(f"connect to {address}", done)

    def reach(self, address: str) -> None:
        """Connect to an address that the server does not list yet.

        Raises:
            RunFailedError: Nobody answers there.
        """
        if address not in {one.serial for one in self.devices()}:
            self.connect(address)

    def disconnect(self, address: str) -> None:
        """Forget a device over TCP; no error if there is none."""
        self._run(self.argv("disconnect", address), QUICK_S)

    def shell(self, words: Sequence[str], *, timeout_s: float = QUICK_S) -> Finished:
        """Run a command on the device and return how it ended; its status is its own.

        Raises:
            RunFailedError: The device is gone, or the time is up.
        """
        done = self._run(self.shell_argv(words), timeout_s)
        self._check_transport(done, f"run {words[0]}")
        return done

    def shell_argv(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the command line that runs a command on the device without a terminal."""
        return self.argv("shell", "-T", shlex.join(words))

    def ask(self, words: Sequence[str], *, timeout_s: float = QUICK_S) -> str:
        """Return what a command prints, empty if it fails.

        Raises:
            RunFailedError: The device is gone, or the time is up.
        """
        done = self.shell(words, timeout_s=timeout_s)
        return done.stdout.strip() if done.returncode == 0 else ""

    def push(self, local: Path, remote: str, *, timeout_s: float) -> None:
        """Copy a file to the device.

        Raises:
            RunFailedError: It did not arrive: no space, no permission, the device is gone.
        """
        done = self._run(self.argv("push", str(local), remote), timeout_s)
        if done.returncode != 0 or done.timed_out:
            raise self.failed(f"push {local.name} to the device", done)

    def pull(self, remote: str, local: Path, *, timeout_s: float) -> None:
        """Copy a file from the device.

        Raises:
            RunFailedError: It is not there, or the device is gone.
        """
        done = self._run(self.argv("pull", remote, str(local)), timeout_s)
        if done.returncode != 0 or done.timed_out or not local.is_file():
            raise self.failed(f"pull {remote} from the device", done)

    def start(self, words: Sequence[str], log: Path) -> Child:
        """Start a command on the device whose output is read line by line."""
        return Child(self.shell_argv(words), log=log, env=self._env())

    def failed(self, doing: str, done: Finished) -> RunFailedError:
        """Return the error for a command of adb that failed, typed by what adb said."""
        said = " ".join((done.stderr or done.stdout).split())
        where = self.serial or "the adb server"
        code, advice = _diagnosis(said, timed_out=done.timed_out)
        return RunFailedError(
            code,
            f"cannot {doing} ({where})",
            why=f"{done.ending}: {said}" if said else done.ending,
            next=advice,
        )

    def damaged(self, name: str, found: str, expected: str) -> RunFailedError:
        """Return the error for a file that has another sha256 on the device than here."""
        return RunFailedError(
            "push-damaged",
            f"{name} arrived damaged on {self.serial}",
            why=f"its sha256 there is {found or 'unreadable'}, here {expected}",
            next="try another cable or port; run it again",
        )

    def _check_transport(self, done: Finished, doing: str) -> None:
        gone = done.returncode in (1, 255) and _diagnosis(done.stderr)[0] != "adb-failed"
        if done.timed_out or gone:
            raise self.failed(doing, done)

    def _run(self, argv: tuple[str, ...], timeout_s: float) -> Finished:
        return run(argv, timeout_s=timeout_s, env=self._env())

    def _env(self) -> dict[str, str]:
        # Somebody else's choice of device or server must not reach a command that names its own.
        ignored = ("ANDROID_SERIAL", "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_PORT", "ADB_TRACE")
        return {name: value for name, value in os.environ.items() if name not in ignored}


# What adb and adbd say (AOSP platform-tools 34 to 36), our code, what to do. First match counts.
_DIAGNOSES = (
    (
        r"unauthorized|device still authorizing|failed to authenticate",
        "device-unauthorized",
        _STATES["unauthorized"],
    ),
    (r"device offline", "device-offline", _STATES["offline"]),
    (
        r"device '?.*'? not found|no devices/emulators found|closed|protocol fault|"
        r"connection reset|failed to read|device disconnected",
        "device-gone",
        "check the cable or the network, then: mobilepack devices",
    ),
    (
        r"No space left",
        "device-full",
        "free some space: mobilepack devices shows it; mobilepack devices --clean removes ours",
    ),
    (
        r"Permission denied|Read-only file system",
        "device-denied",
        "unlock the phone",
    ),
    (
        r"failed to connect to|unable to connect to|cannot resolve host|failed to resolve host",
        "device-unreachable",
        "check address and network; a phone listens after: adb tcpip 5555 (with a cable)",
    ),
    (
        r"cannot connect to daemon|failed to start daemon|failed to check server version|"
        r"Connection refused",
        "adb-unreachable",
        "start the server (adb start-server), or check --adb-host and --adb-port",
    ),
)


def _diagnosis(said: str, *, timed_out: bool = False) -> tuple[str, str]:
    for pattern, code, advice in _DIAGNOSES:
        if re.search(pattern, said, re.IGNORECASE):
            return code, advice
    if timed_out:
        return "device-timeout", "restart the phone, or give it more time: --timeout SECONDS"
    return "adb-failed", "run the same with adb by hand"


def _parse_listed(line: str) -> Listed:
    words = line.split()
    serial, rest = words[0], words[1:]
    pairs = dict(word.split(":", 1) for word in rest if ":" in word)
    state = " ".join(word for word in rest if ":" not in word)
    if "permissions" in line:
        state = "no permissions"
    return Listed(serial, state, pairs)


def is_address(name: str) -> bool:
    """Tell a device over TCP, `192.168.1.5:5555` or `lab-7:5555`, from a serial of another kind."""
    return _ADDRESS.fullmatch(name) is not None and int(name.rpartition(":")[2]) in range(1, 65536)


def find_adb() -> str:
    """Return the adb program: the environment's, the one on PATH, or adbutils' own.

    Raises:
        MissingError: There is none.
    """
    named = os.environ.get(VARIABLE) or shutil.which("adb")
    if named:
        return named
    try:
        import adbutils
    except ImportError as err:
        raise MissingError(
            "no-adb",
            "there is no adb",
            why="it is not on PATH and adbutils, which brings one, is not installed",
            next="pip install 'mobilepack[android]', or put adb on PATH",
        ) from err
    return str(adbutils.adb_path())
