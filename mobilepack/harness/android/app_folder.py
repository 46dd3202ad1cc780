"""The package folder of an installed app, through `run-as`: only what changed is pushed.

    files/package/model.pte, tokenizer.json, manifest.json, prompt.txt
    files/package/.deploying     while it is between two packages; the app refuses it then

`run-as` works for debug builds alone and starts in the app's own folder. A file gets its name
there only after its checksum was computed on the phone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import MissingError
from mobilepack.harness.android.adb import QUICK_S, Adb
from mobilepack.harness.android.store import HASHING, ROOT, OnPush, Store
from mobilepack.harness.lease import leased
from mobilepack.process import Finished

PLACE = "files/package"
RUNS = "run/"
"""Below the package folder: programs of run plans, by checksum, and how each is called."""

MARK = f"{PLACE}/.deploying"
_LIST = 'cd "$1" 2>/dev/null && find . -type f -exec sha256sum {} +'
_COPY = 'mkdir -p "$(dirname "$2")" && cp "$1" "$2.part" && sha256sum "$2.part"'


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deployment did.

    Attributes:
        pushed: Names of files that went over the cable.
        copied: Names of files that the phone had elsewhere already.
        kept: Names of files that were there.
        removed: Names of files that the new package does not have.
    """

    device: str
    pushed: tuple[str, ...]
    copied: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AppFolder:
    """The package folder of one app on one phone.

    Attributes:
        app_id: Application id, checked by the caller.
        wait_s: How long to wait for another user of the phone.
    """

    adb: Adb
    app_id: str
    wait_s: float = 0.0

    def deploy(
        self, files: Mapping[str, Path], on_push: OnPush = lambda name, size: None
    ) -> Deployed:
        """Make the app's package these files and end the app, so that its next start loads them.

        Args:
            files: By name below the package folder.
            on_push: Hears the name and size of each file that is really pushed.

        Raises:
            MissingError: The app is not installed, or no debug build.
            RunFailedError: The phone is held by somebody else, gone or full, or a file arrived
                damaged; what is there then is refused by the app until the next deployment.
        """
        with leased(self.adb.serial, "deploy", self.wait_s):
            self.check()
            there = self._there()
            digests = {name: _sha256(path) for name, path in files.items()}
            changed = [name for name in files if there.get(name) != digests[name]]
            gone = sorted(set(there) - set(files))
            removed = [name for name in gone if not name.startswith(RUNS)]
            pushed: list[str] = []
            copied: list[str] = []
            if changed or removed:
                self._must(["sh", "-c", 'mkdir -p "$1" && : > "$2"', "sh", PLACE, MARK])
                for name in changed:
                    fresh = self.put(files[name], f"{PLACE}/{name}", on_push)
                    (pushed if fresh else copied).append(name)
                for name in removed:
                    self._must(["rm", "-f", f"{PLACE}/{name}"])
                self._must(["rm", "-f", MARK])
            self.adb.ask(["am", "force-stop", self.app_id])
        kept = tuple(name for name in files if name not in changed)
        return Deployed(self.adb.serial, tuple(pushed), tuple(copied), kept, tuple(removed))

    def check(self) -> None:
        """Check that the app is there and lets us in.

        Raises:
            MissingError: It is not installed, or no debug build; `run-as` says which.
        """
        done = self.run_as(["true"])
        if done.returncode == 0:
            return
        said = " ".join((done.stderr or done.stdout).split()) or done.ending
        if "debuggable" in said:
            code, what = "app-not-debuggable", f"{self.app_id} on {self.adb.serial} is closed to us"
            advice = "install a debug build of it: Android Studio's Run, or gradle installDebug"
        else:
            code, what = "app-absent", f"{self.app_id} is not installed on {self.adb.serial}"
            advice = "mobilepack app android OUT writes its project; build it and install it"
        raise MissingError(code, what, why=said, next=advice)

    def run_as(self, words: list[str], *, timeout_s: float = QUICK_S) -> Finished:
        """Run a command as the app, in its own folder.

        Raises:
            RunFailedError: The phone is gone, or the time is up.
        """
        return self.adb.shell(["run-as", self.app_id, *words], timeout_s=timeout_s)

    def _there(self) -> dict[str, str]:
        """Return the checksums of the files that are there, by name."""
        size = sum(self._sizes())
        done = self.run_as(["sh", "-c", _LIST, "sh", PLACE], timeout_s=QUICK_S + size / HASHING)
        lines = [line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line]
        found = {name.removeprefix("./"): digest for digest, name in lines}
        return {name: digest for name, digest in found.items() if name != MARK.rpartition("/")[2]}

    def _sizes(self) -> list[int]:
        done = self.run_as(["sh", "-c", f"find {PLACE} -type f -exec stat -c %s {{}} +"])
        return [int(word) for word in done.stdout.split() if word.isdecimal()]

    def program(self, path: Path, manifest: Path | None, on_push: OnPush) -> str:
        """Return the name below the package folder of a program to run, pushed if need be.

        Args:
            path: The program.
            manifest: What says how it is called, of the static form; it goes beside it.
            on_push: Hears the name and size of what is really pushed.

        Raises:
            RunFailedError: Something did not arrive whole.
        """
        stem = f"{RUNS}{_sha256(path)}"
        name = f"{stem}.pte"
        done = self.run_as(["stat", "-c", "%s", f"{PLACE}/{name}"])
        if done.stdout.strip() != str(path.stat().st_size):
            self.put(path, f"{PLACE}/{name}", on_push)
        if manifest is not None:
            there = f"{PLACE}/{stem}.json"
            done = self.run_as(["sha256sum", there])
            if done.stdout.split(" ")[0] != _sha256(manifest):
                self.put(manifest, there, on_push)
        return name

    def put(self, path: Path, remote: str, on_push: OnPush = lambda name, size: None) -> bool:
        """Put a file into the app's own folder; return whether it was pushed.

        Raises:
            RunFailedError: It did not arrive whole.
        """
        size, digest = path.stat().st_size, _sha256(path)
        store = Store(self.adb, on_push)
        limit = QUICK_S + size / HASHING
        held = f"{ROOT}/objects/{digest}.pte"
        if store.has(held, size):
            self._open(ROOT, f"{ROOT}/objects", held)
            self._copy(held, remote, digest, path.name, limit)
            return False
        with store.run_folder() as folder:
            staged = f"{folder}/{digest}"
            store.send(path, staged)
            self._open(ROOT, f"{ROOT}/runs", folder, staged)
            self._copy(staged, remote, digest, path.name, limit)
        return True

    def _open(self, *paths: str) -> None:
        """Let the app read what adb's shell made: they are two users."""
        self.adb.ask(["chmod", "755", *paths])

    def _copy(self, source: str, remote: str, digest: str, name: str, limit_s: float) -> None:
        done = self.run_as(["sh", "-c", _COPY, "sh", source, remote], timeout_s=limit_s)
        if done.returncode != 0:
            self.run_as(["rm", "-f", f"{remote}.part"])
            raise self.adb.failed(f"copy {name} into {self.app_id}", done)
        found = done.stdout.split(" ")[0]
        if found != digest:
            self.run_as(["rm", "-f", f"{remote}.part"])
            raise self.adb.damaged(name, found, digest)
        self._must(["mv", "-f", f"{remote}.part", remote])

    def _must(self, words: list[str]) -> None:
        done = self.run_as(words)
        if done.returncode != 0:
            raise self.adb.failed(f"change the package of {self.app_id}", done)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
