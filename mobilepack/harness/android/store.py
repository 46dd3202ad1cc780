"""Our folder on a device: programs and runners by checksum, and one folder per run.

    /data/local/tmp/mobilepack/objects/<sha256>.pte, <sha256>.json
    /data/local/tmp/mobilepack/runners/<digest>/mobilepack_runner, lib/
    /data/local/tmp/mobilepack/runs/<host>-<id>/run_plan.json, run_result.json, pid

A file gets its final name only after its checksum was computed on the device, so what has the name
has the content, and is not pushed again.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import platform
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import RunFailedError, UsageError
from mobilepack.harness.android.adb import QUICK_S, Adb
from mobilepack.harness.android.facts import STORE

ROOT = f"{STORE}/mobilepack"
RESULT = "run_result.json"
# Kills what runs in the folder $1, and removes the folder unless the file $2 is there.
_END = (
    'test -f "$1/pid" && kill -9 "$(cat "$1/pid")" 2>/dev/null; '
    'test -n "$2" && test -f "$2" || rm -rf "$1"'
)
_SLOWEST = 1 << 20  # bytes per second of a transfer that is not stuck (USB 2 does 20 times that)
HASHING = 2 << 20
"""Bytes per second of sha256sum below which it is stuck; an emulated core does some 8 MB."""

OnPush = Callable[[str, int], None]
"""Hears the name and size of each file that is really pushed."""


@dataclass(frozen=True, slots=True)
class Store:
    """Our folder on one device."""

    adb: Adb
    on_push: OnPush = lambda name, size: None

    def program(self, path: Path) -> str:
        """Return the name below `objects/` that a program has on the device, pushed if need be.

        Raises:
            RunFailedError: It did not arrive whole.
            UsageError: It is none for ExecuTorch: a folder, as Core ML's packages are.
        """
        if path.is_dir():
            raise UsageError(
                "program-of-another-system",
                f"cannot run {path.name} with Android's harness",
                why="it is a Core ML package, and the runner takes an ExecuTorch program",
                next="leave the device out; or build for it: --target xnnpack",
            )
        digest = _sha256(path)
        name = f"{digest}.pte"
        self._file(path, digest, f"{ROOT}/objects/{name}")
        return name

    def manifest(self, path: Path) -> str:
        """Return the path that a manifest has on the device, pushed if need be.

        Raises:
            RunFailedError: It did not arrive whole.
        """
        digest = _sha256(path)
        remote = f"{ROOT}/objects/{digest}.json"
        self._file(path, digest, remote)
        return remote

    def runner(self, folder: Path) -> str:
        """Return the folder of a runner on the device, pushed if need be.

        Raises:
            RunFailedError: It did not arrive whole.
        """
        files = {path.relative_to(folder).as_posix(): path for path in sorted(_files(folder))}
        digests = {name: _sha256(path) for name, path in files.items()}
        listed = "\n".join(f"{digest} {name}" for name, digest in digests.items())
        remote = f"{ROOT}/runners/{hashlib.sha256(listed.encode()).hexdigest()[:16]}"
        if self.adb.shell(["test", "-d", remote]).returncode == 0:
            return remote
        with self._aside(remote) as aside:
            size = sum(path.stat().st_size for path in files.values())
            self.on_push("the runner and its libraries", size)
            self.adb.push(folder, aside, timeout_s=QUICK_S + size / _SLOWEST)
            found = self._digests(aside, size)
            for name, digest in digests.items():
                if found.get(name) != digest:
                    raise self.adb.damaged(name, found.get(name, ""), digest)
            self._must(["chmod", "-R", "755", aside], "set permissions on the device")
            self._must(["mv", aside, remote], "rename a folder on the device")
        return remote

    @contextlib.contextmanager
    def run_folder(self) -> Iterator[str]:
        """Make a folder for one run; whatever still runs in it is killed at the end, then it goes.

        A run that failed after it had written its result leaves that for the next attempt. A
        device that is gone cannot be cleaned; `sweep` does it later.
        """
        remote = f"{ROOT}/runs/{_host()}-{uuid.uuid4().hex}"
        self._must(["mkdir", "-p", remote], "make a folder on the device")
        keep = f"{remote}/{RESULT}"
        try:
            yield remote
            keep = ""
        finally:
            with contextlib.suppress(RunFailedError):
                self.adb.shell(["sh", "-c", _END, "sh", remote, keep])

    def sweep(self) -> None:
        """Kill and remove what earlier runs from this machine have left, the device being ours.

        Raises:
            RunFailedError: The device is gone.
        """
        listing = f"ls -d {ROOT}/runs/{_host()}-* 2>/dev/null"
        for remote in self.adb.ask(["sh", "-c", listing]).splitlines():
            self.adb.shell(["sh", "-c", _END, "sh", remote, ""])

    def clean(self) -> None:
        """Remove everything that we put on the device.

        Raises:
            RunFailedError: It cannot be removed.
        """
        self._must(["rm", "-rf", ROOT], "remove our files")

    def has_file(self, remote: str) -> bool:
        """Whether there is such a file."""
        return self.adb.shell(["test", "-f", remote]).returncode == 0

    def has(self, remote: str, size: int) -> bool:
        """Whether a file that is named by its checksum is there, whole."""
        return self.adb.ask(["stat", "-c", "%s", remote]) == str(size)

    def send(self, path: Path, remote: str) -> None:
        """Push a file to an existing folder within a time that its size allows.

        Raises:
            RunFailedError: It did not arrive.
        """
        size = path.stat().st_size
        self.on_push(path.name, size)
        self.adb.push(path, remote, timeout_s=QUICK_S + size / _SLOWEST)

    def bytes(self) -> int | None:
        """What we have put on the device takes so much space; None if it does not tell.

        Raises:
            RunFailedError: It is gone.
        """
        words = self.adb.ask(["du", "-sk", ROOT]).split()
        return int(words[0]) * 1024 if words and words[0].isdecimal() else None

    def _file(self, path: Path, digest: str, remote: str) -> None:
        size = path.stat().st_size
        if self.has(remote, size):
            return
        with self._aside(remote) as aside:
            self.send(path, aside)
            self._compare(aside, digest, size, path.name)
            self._must(["chmod", "755", aside], "set permissions on the device")
            self._must(["mv", "-f", aside, remote], "rename a file on the device")

    @contextlib.contextmanager
    def _aside(self, remote: str) -> Iterator[str]:
        """Give a name beside another; what is left of it when that fails is removed."""
        aside = f"{remote}.{uuid.uuid4().hex[:8]}.part"
        self._must(["mkdir", "-p", remote.rsplit("/", 1)[0]], "make a folder on the device")
        try:
            yield aside
        except BaseException:
            with contextlib.suppress(RunFailedError):
                self.adb.shell(["rm", "-rf", aside])
            raise

    def _digests(self, remote: str, size: int) -> dict[str, str]:
        """Return the sha256 of every file below a folder, by its path there."""
        script = 'cd "$1" && find . -type f -exec sha256sum {} +'
        said = self.adb.ask(["sh", "-c", script, "sh", remote], timeout_s=QUICK_S + size / HASHING)
        lines = [line.split("  ", 1) for line in said.splitlines() if "  " in line]
        return {name.removeprefix("./"): digest for digest, name in lines}

    def _compare(self, remote: str, digest: str, size: int, name: str) -> None:
        limit = QUICK_S + size / HASHING
        found = self.adb.ask(["sha256sum", remote], timeout_s=limit).split(" ")[0]
        if found != digest:
            raise self.adb.damaged(name, found, digest)

    def _must(self, words: list[str], doing: str) -> None:
        done = self.adb.shell(words)
        if done.returncode != 0:
            raise self.adb.failed(doing, done)


def _host() -> str:
    """Return a short name for this machine and user: several hosts can share a device."""
    return hashlib.sha256(f"{platform.node()} {getpass.getuser()}".encode()).hexdigest()[:12]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
