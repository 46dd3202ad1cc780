"""iPhones on a Linux host through go-ios, a program of its own (npm `go-ios`, MIT)."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mobilepack.errors import MobilepackError
from mobilepack.harness.ios.faults import fault
from mobilepack.harness.ios.lab import INSTALL_S, LabPhone, reports, transfer_s
from mobilepack.harness.ios.tool import Tool
from mobilepack.process import Child, Finished


@dataclass(frozen=True, slots=True)
class GoIos:
    """go-ios, which answers in JSON on stdout and logs in JSON on stderr.

    It ends with 0 after some failures, so its log's level counts too.

    Attributes:
        poll_s: How often an app's files are asked for while it runs.
    """

    tool: Tool
    poll_s: float = 3.0

    def phones(self) -> tuple[LabPhone, ...]:
        """Return every phone that usbmuxd knows.

        Raises:
            RunFailedError: There is no usbmuxd, or it does not answer.
        """
        text = self.call("cannot list iPhones", "list", "--details")
        return tuple(_phones(text))

    def install(self, udid: str, app: Path) -> None:
        """Install an app; see `LabTool`."""
        words = ("install", f"--path={app}", f"--udid={udid}")
        self.call(f"cannot install {app}", *words, timeout_s=INSTALL_S)

    def container(self, udid: str, bundle_id: str) -> GoIosContainer:
        """Return an installed app."""
        return GoIosContainer(self, udid, bundle_id, poll_s=self.poll_s)

    def call(self, what: str, *words: str, timeout_s: float = 60.0) -> str:
        """Run it and return what it printed on stdout.

        Raises:
            RunFailedError: It failed, by its status or by its log.
        """
        done = self.tool.attempt(*words, timeout_s=timeout_s)
        if failed(done):
            raise self.fault(done, what)
        return done.stdout

    def fault(self, done: Finished, what: str) -> MobilepackError:
        """Return the error for a call that failed, from the errors in its log alone.

        Every call also warns that no tunnel runs, which most do without.
        """
        return fault(replace(done, stderr="; ".join(_errors(done.stderr)) or done.stderr), what)


def failed(done: Finished) -> bool:
    """Whether a call failed, by its status or by what it logged."""
    return done.returncode != 0 or done.timed_out or bool(_errors(done.stderr))


def _errors(log: str) -> list[str]:
    found = []
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and str(entry.get("level", "")).lower() in _BAD:
                found.append(f"{entry.get('msg', '')}: {entry.get('err', '')}".rstrip(": "))
    return found


_BAD = ("error", "fatal", "panic")


def _phones(text: str) -> Iterator[LabPhone]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            for one in json.loads(line).get("deviceList", ()):
                if isinstance(one, str):
                    yield LabPhone(one)
                else:
                    udid = str(one.get("Udid", ""))
                    yield LabPhone(
                        udid, str(one.get("ProductType", "")), str(one.get("ProductVersion", ""))
                    )


@dataclass(frozen=True, slots=True)
class GoIosContainer:
    """An app on an iPhone; see `AppContainer`. Its output does not come here: files do.

    Files go through `fsync`, which is house_arrest and needs no tunnel; `ios file` of 1.2.0 does.
    """

    go: GoIos
    udid: str
    bundle_id: str
    console: bool = False
    poll_s: float = 3.0
    folders: set[str] = field(default_factory=lambda: {"Documents", "."})
    known: set[str] = field(default_factory=set)

    def push(self, source: Path, there: str) -> None:
        """Copy a file, or the files of a folder one by one: go-ios pushes files."""
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                self.push(path, f"{there}/{path.relative_to(source).as_posix()}")
            return
        for folder in reversed(PurePosixPath(there).parents):
            self._make(str(folder))
        what = f"cannot push {source.name} to {self.udid}"
        words = ("push", f"--srcPath={source}", f"--dstPath={there}")
        self.go.call(what, *self._fsync(), *words, timeout_s=transfer_s(source))

    def _make(self, folder: str) -> None:
        if folder not in self.folders:
            what = f"cannot make {folder} on {self.udid}"
            self.go.call(what, *self._fsync(), "mkdir", f"--path={folder}")
            self.folders.add(folder)

    def read(self, there: str) -> bytes | None:
        """Return a file's bytes; None for whatever go-ios calls a file that is not there.

        Raises:
            RunFailedError: The phone cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as folder:
            words = ("pull", f"--srcPath={there}", f"--dstPath={folder}")
            done = self.go.tool.attempt(*self._fsync(), *words)
            path = Path(folder) / PurePosixPath(there).name
            if not failed(done) and path.is_file():
                return path.read_bytes()
        found = self.go.fault(done, f"cannot read {there} on {self.udid}")
        if found.code == "tool-failed":  # AFC's error 8: there is none
            return None
        raise found

    def _fsync(self) -> tuple[str, ...]:
        return ("fsync", f"--app={self.bundle_id}", f"--udid={self.udid}")

    def launch(self, arguments: tuple[str, ...], log: Path) -> Child:
        """Start the app through the phone's developer services, which need the tunnel on iOS 17."""
        self.known.update(self._reports())
        words = tuple(f"--arg={word}" for word in arguments)
        options = ("--kill-existing", f"--udid={self.udid}")
        return self.go.tool.start("launch", self.bundle_id, *words, *options, log=log)

    def terminate(self) -> None:
        """End the app."""
        self.go.tool.attempt("kill", self.bundle_id, f"--udid={self.udid}")

    def post_mortem(self) -> str:
        """Return the name of the crash report that this run left, empty without one."""
        new = self._reports() - self.known
        return f"crash report {max(new)}" if new else ""

    def _reports(self) -> set[str]:
        with contextlib.suppress(MobilepackError):
            words = ("crash", "ls", "MobilepackDemo*", f"--udid={self.udid}")
            return reports(self.go.call("cannot list crash reports", *words))
        return set()
