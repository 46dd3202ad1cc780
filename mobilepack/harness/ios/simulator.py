"""The iOS Simulator through `xcrun simctl`: created or reused, booted, and put back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mobilepack.contract.base import problems
from mobilepack.errors import MissingError, MobilepackError, RunFailedError
from mobilepack.harness.base import Device
from mobilepack.harness.ios.container import IosApp, Tell
from mobilepack.harness.ios.faults import fault
from mobilepack.harness.ios.tool import Tool
from mobilepack.process import Child

NEW = "simulator"
"""The device name that asks for a simulator of its own, deleted at the end."""

_OURS = re.compile(r"mobilepack-(\d+)")
_BOOT_S = 300.0
_INSTALL_S = 300.0
_BOOTED = "Booted"


class _Wire(BaseModel):
    """A part of what simctl prints; Apple adds keys with every release."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Simulator(_Wire):
    """One simulator of `simctl list -j`."""

    udid: str
    name: str
    state: str
    isAvailable: bool = True  # noqa: N815 - Apple's key
    runtime: str = ""


class _Type(_Wire):
    identifier: str
    name: str
    productFamily: str = ""  # noqa: N815


class _Runtime(_Wire):
    identifier: str
    name: str
    isAvailable: bool = True  # noqa: N815
    supportedDeviceTypes: tuple[_Type, ...] = ()  # noqa: N815


class Listing(_Wire):
    """`simctl list -j`."""

    devices: dict[str, tuple[Simulator, ...]]
    runtimes: tuple[_Runtime, ...] = ()
    devicetypes: tuple[_Type, ...] = ()

    def simulators(self) -> tuple[Simulator, ...]:
        """Return every simulator with the name of its runtime, `iOS 26.5`."""
        names = {one.identifier: one.name for one in self.runtimes}
        return tuple(
            one.model_copy(update={"runtime": names.get(key) or _readable(key)})
            for key, listed in self.devices.items()
            for one in listed
        )


def _readable(key: str) -> str:
    """Return `iOS 26.5` for `com.apple.CoreSimulator.SimRuntime.iOS-26-5`; old keys read so."""
    name, *version = key.rpartition(".SimRuntime.")[2].split("-")
    return f"{name} {'.'.join(version)}".strip()


@dataclass(frozen=True, slots=True)
class Simctl:
    """`xcrun simctl` for everybody who needs it."""

    tool: Tool

    def listing(self) -> Listing:
        """Return simulators, runtimes and types.

        Raises:
            RunFailedError: simctl fails, or lists something else.
        """
        text = self.tool.run("cannot list simulators", "list", "-j")
        try:
            return Listing.model_validate_json(text)
        except ValidationError as err:
            raise RunFailedError(
                "simctl-list",
                "cannot read what simctl lists",
                why=problems(err),
                next="report this with `xcodebuild -version`",
            ) from err

    def create(self, type_name: str = "") -> str:
        """Make a simulator of ours and return its UDID.

        Args:
            type_name: For example `iPhone 16`; the newest runtime's newest iPhone by default.

        Raises:
            MissingError: There is no runtime, or no such type.
        """
        listing = self.listing()
        self.sweep(listing)
        words = self.choice(listing, type_name)
        return self.tool.run("cannot make a simulator", "create", *words).strip()

    def choice(self, listing: Listing, type_name: str) -> tuple[str, str, str]:
        """Return name, device type and runtime of a simulator to make.

        Raises:
            MissingError: There is no runtime.
        """
        runtimes = [one for one in listing.runtimes if one.isAvailable and "iOS" in one.name]
        if not runtimes:
            raise MissingError(
                "no-simulator-runtime",
                "cannot make a simulator",
                why="simctl lists no iOS runtime",
                next="xcodebuild -downloadPlatform iOS",
            )
        newest = max(runtimes, key=lambda one: _version(one.name))
        types = newest.supportedDeviceTypes or listing.devicetypes
        phones = [one.identifier for one in types if one.productFamily == "iPhone"]
        wanted = type_name or (phones[0] if phones else "iPhone 16")
        return f"mobilepack-{os.getpid()}", wanted, newest.identifier

    def sweep(self, listing: Listing) -> None:
        """Delete simulators of ours whose process is gone (killed before it could)."""
        for one in listing.simulators():
            found = _OURS.fullmatch(one.name)
            if found and not _lives(int(found[1])):
                self.tool.attempt("delete", one.udid)

    def boot(self, udid: str) -> None:
        """Boot a simulator and wait until it is up; one that runs already is fine."""
        done = self.tool.attempt("bootstatus", udid, "-b", timeout_s=_BOOT_S)
        already = "current state: Booted" in done.stderr
        if (done.returncode != 0 or done.timed_out) and not already:
            raise fault(done, f"the simulator {udid} does not boot")


def _version(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class SimulatorPhone:
    """One simulator; see `AppPhone`."""

    def __init__(self, simctl: Simctl, app: IosApp, udid: str = "", type_name: str = "") -> None:
        """Make one.

        Args:
            simctl: The tool.
            app: Carries out the plans.
            udid: Of one that exists; empty makes one for each run and deletes it.
            type_name: For one that is made.
        """
        self._simctl = simctl
        self._app = app
        self._udid = udid
        self._type = type_name

    @property
    def device(self) -> Device:
        """The simulator."""
        return Device(self._udid or NEW, "iOS Simulator", "simulator")

    @contextlib.contextmanager
    def ready(self, tell: Tell) -> Iterator[SimulatorContainer]:
        """Create if asked for, boot, install; shut down or delete afterwards."""
        tool = self._simctl.tool
        udid = self._udid or self._simctl.create(self._type)
        ran = self._udid and self._state(udid) == _BOOTED
        try:
            tell(f"boot the simulator {udid}")
            self._simctl.boot(udid)
            if self._app.path is not None:
                tell(f"install {self._app.path.name}")
                self._install(udid)
            yield SimulatorContainer(tool, udid, self._app.bundle_id)
        finally:
            if not self._udid:
                tool.attempt("shutdown", udid)
                tool.run(f"cannot delete the simulator {udid}", "delete", udid)
            elif not ran:
                tool.attempt("shutdown", udid)

    def _install(self, udid: str) -> None:
        self._simctl.tool.run(
            f"cannot install {self._app.path}",
            *("install", udid, str(self._app.path)),
            timeout_s=_INSTALL_S,
        )

    def _state(self, udid: str) -> str:
        found = [one for one in self._simctl.listing().simulators() if one.udid == udid]
        if not found:
            raise MissingError(
                "unknown-device",
                f"there is no simulator {udid}",
                why="simctl does not list it",
                next="mobilepack devices",
            )
        if not found[0].isAvailable:
            raise MissingError(
                "no-simulator-runtime",
                f"the simulator {found[0].name} cannot be used",
                why=f"its runtime {found[0].runtime} is not installed",
                next="xcodebuild -downloadPlatform iOS",
            )
        return found[0].state


@dataclass(frozen=True, slots=True)
class SimulatorContainer:
    """An app in a simulator, whose files are this Mac's; see `AppContainer`."""

    tool: Tool
    udid: str
    bundle_id: str
    poll_s: float = 1.0
    console: bool = True

    def push(self, source: Path, there: str) -> None:
        """Copy a file or folder."""
        target = self._data() / there
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)

    def read(self, there: str) -> bytes | None:
        """Return a file's bytes."""
        path = self._data() / there
        return path.read_bytes() if path.is_file() else None

    def _data(self) -> Path:
        """Return the data container; asked each time, for an installation moves it."""
        what = f"cannot find {self.bundle_id} in the simulator"
        done = self.tool.attempt("get_app_container", self.udid, self.bundle_id, "data")
        if done.returncode != 0 and "No such file" in done.stderr:
            raise MissingError(
                "app-not-installed",
                what,
                why="simctl knows no container of it",
                next="name a built app: --app MobilepackDemo.app",
            )
        if done.returncode != 0 or done.timed_out:
            raise fault(done, what)
        path = Path(done.stdout.strip())
        if not path.is_dir():
            raise RunFailedError(
                "container-gone",
                what,
                why=f"simctl says it is {path}, which is not there",
                next="install the app again: --app MobilepackDemo.app, or erase the simulator",
            )
        return path

    def launch(self, arguments: tuple[str, ...], log: Path) -> Child:
        """Start the app on a pseudo-terminal: on a pipe its output would come in blocks."""
        options = ("--console-pty", "--terminate-running-process")
        return self.tool.start("launch", *options, self.udid, self.bundle_id, *arguments, log=log)

    def terminate(self) -> None:
        """End the app."""
        self.tool.attempt("terminate", self.udid, self.bundle_id)

    def post_mortem(self) -> str:
        """Return what the newest crash report of the last minute says."""
        folder = Path.home() / "Library/Logs/DiagnosticReports"
        recent = [p for p in folder.glob("*.ips") if time.time() - p.stat().st_mtime < 60]
        for path in sorted(recent, key=lambda p: p.stat().st_mtime, reverse=True):
            with contextlib.suppress(ValueError, KeyError, MobilepackError):
                body = json.loads(path.read_text().partition("\n")[2])
                said = f"{body['exception']['type']} ({body['exception']['signal']})"
                return f"{body['procName']}: {said}, {path.name}"
        return ""
