"""Our folder on a device: programs and runners by checksum, and one folder per run.

    /data/local/tmp/mobilepack/objects/<sha256>.pte
    /data/local/tmp/mobilepack/runners/<digest>/mobilepack_runner, lib/
    /data/local/tmp/mobilepack/runs/<id>/run_plan.json, run_result.json, pid

A file gets its final name only after its checksum was computed on the device, so what has the name
has the content, and is not pushed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import QUICK_S, Adb
from mobilepack.harness.android.facts import STORE

ROOT = f"{STORE}/mobilepack"
_SLOWEST = 1 << 20  # bytes per second of a transfer that is not stuck (USB 2 does 20 times that)
HASHING = 20 << 20
"""Bytes per second of sha256sum on a slow core."""

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
        """
        digest = _sha256(path)
        name = f"{digest}.pte"
        self._file(path, digest, f"{ROOT}/objects/{name}")
        return name

    def runner(self, folder: Path) -> str:
        """Return the folder of a runner on the device, pushed if need be.

        Raises:
            RunFailedError: It did not arrive whole.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digests = [_sha256(path) for path in files]
        names = [path.relative_to(folder).as_posix() for path in files]
        listed = "\n".join(f"{d} {n}" for d, n in zip(digests, names, strict=True))
        remote = f"{ROOT}/runners/{hashlib.sha256(listed.encode()).hexdigest()[:16]}"
        for path, digest, name in zip(files, digests, names, strict=True):
            self._file(path, digest, f"{remote}/{name}")
        return remote

    @contextlib.contextmanager
    def run_folder(self) -> Iterator[str]:
        """Make a folder for one run; whatever still runs in it is killed at the end, then it goes.

        A device that is gone cannot be cleaned; `clean` does it later.
        """
        remote = f"{ROOT}/runs/{uuid.uuid4().hex}"
        self._must(["mkdir", "-p", remote], "make a folder on the device")
        try:
            yield remote
        finally:
            script = 'test -f "$1/pid" && kill -9 "$(cat "$1/pid")" 2>/dev/null; rm -rf "$1"'
            with contextlib.suppress(RunFailedError):
                self.adb.shell(["sh", "-c", script, "sh", remote])

    def clean(self) -> None:
        """Remove everything that we put on the device.

        Raises:
            RunFailedError: It cannot be removed.
        """
        self._must(["rm", "-rf", ROOT], "remove our files")

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
        aside = f"{remote}.{uuid.uuid4().hex[:8]}.part"
        self._must(["mkdir", "-p", remote.rsplit("/", 1)[0]], "make a folder on the device")
        try:
            self.send(path, aside)
            self._compare(aside, digest, size, path.name)
            self._must(["chmod", "755", aside], "set permissions on the device")
            self._must(["mv", "-f", aside, remote], "rename a file on the device")
        except BaseException:
            with contextlib.suppress(RunFailedError):
                self.adb.shell(["rm", "-f", aside])
            raise

    def _compare(self, remote: str, digest: str, size: int, name: str) -> None:
        limit = QUICK_S + size / HASHING
        found = self.adb.ask(["sha256sum", remote], timeout_s=limit).split(" ")[0]
        if found != digest:
            raise self.adb.damaged(name, found, digest)

    def _must(self, words: list[str], doing: str) -> None:
        done = self.adb.shell(words)
        if done.returncode != 0:
            raise self.adb.failed(doing, done)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
