"""iPhones on a Linux host, whichever program leads to them: go-ios, else pymobiledevice3."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mobilepack.harness.base import Device
from mobilepack.harness.ios.container import AppContainer, IosApp, Tell

INSTALL_S = 600.0
_SLOWEST = 1 << 20  # bytes per second of a transfer that is not stuck
_LEAST_S = 60.0
_UDID = re.compile(r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{16}$|^[0-9a-f]{40}$")
_REPORT = re.compile(r"MobilepackDemo[\w.-]+\.ips")


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


class LabTool(Protocol):
    """A program that leads to iPhones."""

    def phones(self) -> tuple[LabPhone, ...]:
        """Return every phone that usbmuxd knows.

        Raises:
            RunFailedError: There is no usbmuxd, or it does not answer.
        """

    def install(self, udid: str, app: Path) -> None:
        """Install a signed `.ipa` or `.app`.

        Raises:
            RunFailedError: It cannot be installed.
        """

    def container(self, udid: str, bundle_id: str) -> AppContainer:
        """Return an installed app."""


class LabAppPhone:
    """One iPhone on a Linux host; see `AppPhone`."""

    def __init__(self, tool: LabTool, app: IosApp, phone: LabPhone) -> None:
        """Make one.

        Args:
            tool: Leads to it.
            app: Carries out the plans; a path is a signed `.ipa` or `.app`.
            phone: As listed.
        """
        self._tool = tool
        self._app = app
        self._phone = phone

    @property
    def device(self) -> Device:
        """The phone."""
        phone = self._phone
        name = f"{phone.model or 'iPhone'}, iOS {phone.system or 'unknown'}"
        return Device(phone.udid, name, "device")

    @contextlib.contextmanager
    def ready(self, tell: Tell) -> Iterator[AppContainer]:
        """Install the app if one was named; nothing is undone."""
        if self._app.path is not None:
            tell(f"install {self._app.path.name}")
            self._tool.install(self._phone.udid, self._app.path)
        yield self._tool.container(self._phone.udid, self._app.bundle_id)


def transfer_s(source: Path) -> float:
    """Return the time limit for pushing a file or folder, s."""
    size = sum(path.stat().st_size for path in (source, *source.rglob("*")))
    return _LEAST_S + size / _SLOWEST


def reports(said: str) -> set[str]:
    """Return the names of the app's crash reports in a listing."""
    return set(_REPORT.findall(said))


def is_udid(name: str) -> bool:
    """Whether a name is an iPhone's UDID, in the form since 2018 or the older one."""
    return bool(_UDID.match(name))
