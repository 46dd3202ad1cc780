"""deploy: put a package where the demo app finds it, without building the app again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mobilepack.commands.app import APPLICATION_ID
from mobilepack.commands.app_files import android_files
from mobilepack.commands.app_ios import ApplePlace
from mobilepack.commands.apple import apple_harness, is_apple
from mobilepack.commands.devices import AdbServer, phone_serials
from mobilepack.contract.package import Package, open_package
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.app_folder import AppFolder, Deployed
from mobilepack.harness.android.facts import read_facts
from mobilepack.harness.android.match import check_match

OnPush = Callable[[str, int], None]
"""Hears the name and bytes of each file that is really pushed."""


def quietly(name: str, size: int) -> None:
    """Ignore what is pushed."""


class Place(Protocol):
    """One app on one device, that packages go to."""

    @property
    def serial(self) -> str:
        """Serial or UDID of the device."""

    def deploy(self, package: Package, on_push: OnPush = quietly) -> Deployed:
        """Make a package the app's.

        Raises:
            UsageError: It does not run on this device.
            MissingError: The app is not there.
            RunFailedError: The device is held by somebody else, gone or full.
        """


@dataclass(frozen=True, slots=True)
class AndroidPlace:
    """android_demo on a phone over adb."""

    adb: Adb
    app_id: str
    wait_s: float = 0.0

    @property
    def serial(self) -> str:
        """The phone's."""
        return self.adb.serial

    def deploy(self, package: Package, on_push: OnPush = quietly) -> Deployed:
        """See `Place.deploy`; what does not run on this phone is refused before it is pushed."""
        check_match(read_facts(self.adb), package.manifest.plan.soc_model)
        with android_files(package) as files:
            return AppFolder(self.adb, self.app_id, self.wait_s).deploy(files, on_push)


def places(
    names: Sequence[str],
    server: AdbServer = AdbServer(),  # noqa: B008 - frozen
    *,
    app_id: str = APPLICATION_ID,
) -> tuple[Place, ...]:
    """Return the places that names select; without names, the only attached device.

    Args:
        names: Serials, virtual phones, `all`, selectors such as `soc=SM8650`, or UDIDs.
        server: For the phones.
        app_id: Of the installed app.

    Raises:
        MissingError: A name selects nothing, or no name was given and there is not one device.
    """
    apple = [name for name in names if is_apple(name)]
    others = [name for name in names if not is_apple(name)]
    found: list[Place] = []
    for name in apple:
        app = server.ios_app or app_id
        harness = apple_harness(name, app, purpose="deploy", wait_s=server.wait_s)
        found.append(ApplePlace(harness))
    if others or not apple:
        adb = server.client()
        serials = phone_serials(others, server)
        found += [AndroidPlace(adb.on(serial), app_id, server.wait_s) for serial in serials]
    return tuple(found)


def deploy(package: Path, place: Place, on_push: OnPush = quietly) -> Deployed:
    """Put a package into one app; see `Place.deploy`.

    Raises:
        MissingError: There is no package.
    """
    return place.deploy(open_package(package), on_push)
