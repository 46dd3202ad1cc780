"""iPhones on a Mac through `xcrun devicectl`, whose JSON has two shapes (Xcode 27 changed it)."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilepack.contract.base import problems
from mobilepack.errors import MissingError, RunFailedError
from mobilepack.harness.base import Device
from mobilepack.harness.ios.container import IosApp, Tell
from mobilepack.harness.ios.faults import fault
from mobilepack.harness.ios.tool import Tool
from mobilepack.process import Child

DOMAIN = "appDataContainer"
CONSOLE_SINCE = (16,)
"""Xcode that gave `device process launch` its `--console` (flutter/flutter, core_devices.dart)."""

_LIST_S = 60.0
_INSTALL_S = 600.0
_SLOWEST = 1 << 20  # bytes per second of a transfer that is not stuck
_LEAST_S = 60.0


class _Wire(BaseModel):
    """A part of what devicectl writes; every version adds keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Hardware(_Wire):
    udid: str = ""
    platform: str = ""
    productType: str = ""  # noqa: N815 - Apple's keys
    marketingName: str = ""  # noqa: N815
    reality: str = "physical"


class _State(_Wire):
    name: str = ""
    osVersionNumber: str = ""  # noqa: N815
    developerModeStatus: str = ""  # noqa: N815


class _Connection(_Wire):
    pairingState: str = ""  # noqa: N815
    tunnelState: str = ""  # noqa: N815
    transportType: str = ""  # noqa: N815


class _Properties(_Wire):
    """Where JSON version 5 puts the three (Xcode 27)."""

    hardware: _Hardware = _Hardware()
    state: _State = _State()
    connection: _Connection = _Connection()


class _Device(_Wire):
    identifier: str
    hardwareProperties: _Hardware | None = None  # noqa: N815
    deviceProperties: _State | None = None  # noqa: N815
    connectionProperties: _Connection | None = None  # noqa: N815
    properties: _Properties | None = None


class _App(_Wire):
    bundleIdentifier: str = ""  # noqa: N815


class _Result(_Wire):
    devices: tuple[_Device, ...] = ()
    apps: tuple[_App, ...] = ()


class _Info(_Wire):
    jsonVersion: int = 1  # noqa: N815
    outcome: str = ""


class _Envelope(_Wire):
    info: _Info = Field(default_factory=_Info)
    result: _Result = Field(default_factory=_Result)


@dataclass(frozen=True, slots=True)
class Iphone:
    """A phone that this Mac knows.

    Attributes:
        identifier: devicectl's own; `--device` takes it and the UDID.
        tunnel: `connected`, `disconnected` (usable: the next command connects) or `unavailable`.
    """

    udid: str
    identifier: str
    name: str
    model: str
    system: str
    paired: bool
    tunnel: str
    developer_mode: str

    @property
    def state(self) -> str:
        """`ready`, or what is wrong."""
        if not self.paired:
            return "not paired"
        if self.tunnel == "unavailable":
            return "unreachable"
        return "developer mode off" if self.developer_mode == "disabled" else "ready"

    @property
    def remedy(self) -> str:
        """What to do about its state."""
        return {
            "ready": "",
            "not paired": "unlock it and answer Trust; xcrun devicectl manage pair --device "
            + self.udid,
            "unreachable": "connect its cable, unlock it, and wait until Xcode shows it",
            "developer mode off": "on the phone: Settings, Privacy & Security, Developer Mode",
        }[self.state]


def _envelope(text: str | bytes) -> _Envelope:
    try:
        return _Envelope.model_validate_json(text)
    except ValidationError as err:
        raise RunFailedError(
            "devicectl-list",
            "cannot read what devicectl lists",
            why=problems(err),
            next="report this with `xcodebuild -version`",
        ) from err


def parse_devices(text: str | bytes) -> tuple[Iphone, ...]:
    """Return the phones of `devicectl list devices --json-output`, in either shape.

    Simulators, which version 5 lists too, watches and Macs are left out.

    Raises:
        RunFailedError: It has neither shape.
    """
    found = (_iphone(one) for one in _envelope(text).result.devices)
    return tuple(one for one in found if one is not None)


def _iphone(row: _Device) -> Iphone | None:
    new = row.properties or _Properties()
    hardware = row.hardwareProperties or new.hardware
    state = row.deviceProperties or new.state
    connection = row.connectionProperties or new.connection
    if hardware.platform not in ("iOS", "") or hardware.reality not in ("physical", ""):
        return None
    return Iphone(
        udid=hardware.udid or row.identifier,
        identifier=row.identifier,
        name=state.name,
        model=hardware.marketingName or hardware.productType,
        system=state.osVersionNumber,
        paired=connection.pairingState == "paired",
        tunnel=connection.tunnelState,
        developer_mode=state.developerModeStatus,
    )


@dataclass(frozen=True, slots=True)
class Devicectl:
    """`xcrun devicectl`.

    Attributes:
        console: Whether this Xcode's `launch` has one.
    """

    tool: Tool
    console: bool = True

    def phones(self) -> tuple[Iphone, ...]:
        """Return every iPhone and iPad that this Mac knows.

        Raises:
            MissingError: Xcode is too old to have devicectl.
            RunFailedError: It fails.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as folder:
            path = Path(folder) / "devices.json"
            words = ("list", "devices", "--timeout", "10", "--json-output", str(path))
            self.tool.run("cannot list iPhones", *words, timeout_s=_LIST_S)
            return parse_devices(path.read_bytes())

    def has(self, udid: str, bundle_id: str) -> bool:
        """Whether an app is installed on a phone.

        Raises:
            RunFailedError: The phone cannot be asked.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as folder:
            path = Path(folder) / "apps.json"
            words = ("device", "info", "apps", "--device", udid, "--bundle-id", bundle_id)
            what = f"cannot list the apps of {udid}"
            self.tool.run(what, *words, "--json-output", str(path), timeout_s=_LIST_S)
            return bool(_envelope(path.read_bytes()).result.apps)


class DevicectlPhone:
    """One iPhone on a Mac; see `AppPhone`."""

    def __init__(self, ctl: Devicectl, app: IosApp, phone: Iphone) -> None:
        """Make one.

        Args:
            ctl: The tool.
            app: Carries out the plans.
            phone: As listed.
        """
        self._ctl = ctl
        self._app = app
        self._phone = phone

    @property
    def device(self) -> Device:
        """The phone."""
        phone = self._phone
        return Device(phone.udid, f"{phone.model}, iOS {phone.system}", "device", phone.state)

    @contextlib.contextmanager
    def ready(self, tell: Tell) -> Iterator[DevicectlContainer]:
        """Install the app if one was named; nothing is undone.

        Raises:
            RunFailedError: The phone cannot be used.
        """
        if self._phone.state != "ready":
            raise RunFailedError(
                "phone-unreachable",
                f"{self._phone.udid} cannot be used",
                why=f"devicectl says it is {self._phone.state}",
                next=self._phone.remedy,
            )
        if self._app.path is not None and self._app.path.suffix == ".ipa":
            raise MissingError(
                "app-format",
                f"cannot install {self._app.path.name}",
                why="devicectl takes the .app in it",
                next="unzip it: Payload/*.app",
            )
        if self._app.path is not None:
            tell(f"install {self._app.path.name}")
            words = ("device", "install", "app", "--device", self._phone.udid)
            path = str(self._app.path)
            self._ctl.tool.run(f"cannot install {path}", *words, path, timeout_s=_INSTALL_S)
        elif not self._ctl.has(self._phone.udid, self._app.bundle_id):
            raise MissingError(
                "app-not-installed",
                f"there is no app {self._app.bundle_id} on {self._phone.udid}",
                why="devicectl does not list it",
                next="name a built app: --app MobilepackDemo.app (mobilepack app ios OUT makes the "
                "project), or the id of the installed one",
            )
        yield DevicectlContainer(
            self._ctl.tool, self._phone.udid, self._app.bundle_id, console=self._ctl.console
        )


@dataclass(frozen=True, slots=True)
class DevicectlContainer:
    """An app on an iPhone; see `AppContainer`."""

    tool: Tool
    udid: str
    bundle_id: str
    console: bool = True
    poll_s: float = 5.0

    def push(self, source: Path, there: str) -> None:
        """Copy a file or folder."""
        size = sum(path.stat().st_size for path in (source, *source.rglob("*")))
        words = self._copy("to", "--source", str(source), "--destination", there)
        limit = _LEAST_S + size / _SLOWEST
        self.tool.run(f"cannot push {source.name} to {self.udid}", *words, timeout_s=limit)

    def read(self, there: str) -> bytes | None:
        """Return a file's bytes; None for whatever devicectl calls a file that is not there.

        Raises:
            RunFailedError: The phone cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as folder:
            path = Path(folder) / "pulled"
            words = self._copy("from", "--source", there, "--destination", str(path))
            done = self.tool.attempt(*words)
            if done.returncode == 0 and path.is_file():
                return path.read_bytes()
        found = fault(done, f"cannot read {there} on {self.udid}")
        if found.code in ("phone-unreachable", "tool-timeout", "unknown-device"):
            raise found
        return None

    def _copy(self, way: str, *words: str) -> tuple[str, ...]:
        domain = ("--domain-type", DOMAIN, "--domain-identifier", self.bundle_id)
        return ("device", "copy", way, "--device", self.udid, *words, *domain)

    def launch(self, arguments: tuple[str, ...], log: Path) -> Child:
        """Start the app; with a console, ending the child ends the app."""
        options = ("--terminate-existing", *(("--console",) if self.console else ()))
        words = ("device", "process", "launch", "--device", self.udid, *options)
        return self.tool.start(*words, self.bundle_id, "--", *arguments, log=log)

    def terminate(self) -> None:
        """Nothing: the console's end is the app's, and the next launch ends one that lives on."""

    def post_mortem(self) -> str:
        """Return nothing: the console names the signal, reports stay on the phone."""
        return ""
