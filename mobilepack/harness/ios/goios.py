"""iPhones on a Linux host through go-ios, a program of its own (npm `go-ios`, MIT)."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mobilepack.errors import MobilepackError
from mobilepack.harness.base import Device
from mobilepack.harness.ios.container import IosApp, Tell
from mobilepack.harness.ios.faults import fault
from mobilepack.harness.ios.tool import Tool
from mobilepack.process import Child, Finished

_INSTALL_S = 600.0
_SLOWEST = 1 << 20  # bytes per second of a transfer that is not stuck
_LEAST_S = 60.0
_UDID = re.compile(r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{16}$|^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class LabPhone:
    """A phone on this machine's usbmuxd.

    Attributes:
        model: Apple's model identifier, `iPhone16,1`; empty if it does not tell.
        system: iOS version; empty if it does not tell.
    """

    udid: str
    model: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class GoIos:
    """go-ios, which answers in JSON on stdout and logs in JSON on stderr.

    It ends with 0 after some failures, so its log's level counts too.
    """

    tool: Tool

    def phones(self) -> tuple[LabPhone, ...]:
        """Return every phone that usbmuxd knows.

        Raises:
            RunFailedError: There is no usbmuxd, or it does not answer.
        """
        text = self.call("cannot list iPhones", "list", "--details")
        return tuple(_phones(text))

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


class GoIosPhone:
    """One iPhone on a Linux host; see `AppPhone`."""

    def __init__(self, tool: Tool, app: IosApp, phone: LabPhone) -> None:
        """Make one.

        Args:
            tool: go-ios.
            app: Carries out the plans; a path is a signed `.ipa` or `.app`.
            phone: As listed.
        """
        self._go = GoIos(tool)
        self._app = app
        self._phone = phone

    @property
    def device(self) -> Device:
        """The phone."""
        phone = self._phone
        name = f"{phone.model or 'iPhone'}, iOS {phone.system or 'unknown'}"
        return Device(phone.udid, name, "device")

    @contextlib.contextmanager
    def ready(self, tell: Tell) -> Iterator[GoIosContainer]:
        """Install the app if one was named; nothing is undone."""
        if self._app.path is not None:
            tell(f"install {self._app.path.name}")
            words = ("install", f"--path={self._app.path}", f"--udid={self._phone.udid}")
            self._go.call(f"cannot install {self._app.path}", *words, timeout_s=_INSTALL_S)
        yield GoIosContainer(self._go, self._phone.udid, self._app.bundle_id)


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

    def push(self, source: Path, there: str) -> None:
        """Copy a file, or the files of a folder one by one: go-ios pushes files."""
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                self.push(path, f"{there}/{path.relative_to(source).as_posix()}")
            return
        for folder in reversed(PurePosixPath(there).parents):
            self._make(str(folder))
        limit = _LEAST_S + source.stat().st_size / _SLOWEST
        what = f"cannot push {source.name} to {self.udid}"
        words = ("push", f"--srcPath={source}", f"--dstPath={there}")
        self.go.call(what, *self._fsync(), *words, timeout_s=limit)

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
        words = tuple(f"--arg={word}" for word in arguments)
        options = ("--kill-existing", f"--udid={self.udid}")
        return self.go.tool.start("launch", self.bundle_id, *words, *options, log=log)

    def terminate(self) -> None:
        """End the app."""
        self.go.tool.attempt("kill", self.bundle_id, f"--udid={self.udid}")

    def post_mortem(self) -> str:
        """Return the newest crash report's name, empty without one."""
        with contextlib.suppress(MobilepackError):
            words = ("crash", "ls", "MobilepackDemo*", f"--udid={self.udid}")
            said = self.go.call("cannot list crash reports", *words)
            names = re.findall(r"MobilepackDemo[\w.-]+\.ips", said)
            return f"crash report {max(names)}" if names else ""
        return ""


def is_udid(name: str) -> bool:
    """Whether a name is an iPhone's UDID, in the form since 2018 or the older one."""
    return bool(_UDID.match(name))
