"""`mobilepack deploy`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import device_options, options, render
from mobilepack.cli.packages import existing, package_argument
from mobilepack.cli.progress import steps

if TYPE_CHECKING:
    from mobilepack.harness.android.app_folder import Deployed


@click.command(
    epilog="""\b
Example
  mobilepack deploy out/mine/xnnpack
  mobilepack deploy out/mine/qnn -d soc=SM8650 --json
  mobilepack deploy out/mine/xnnpack -d 00008130-001C2D3E4F50001A
"""
)
@package_argument
@device_options.phone_options
@click.option(
    "--app-id",
    default="mobilepack.demo",
    show_default=True,
    metavar="ID",
    help="Application id of the installed app.",
)
@options.json_option
def command(
    package: Path | None, devices: device_options.Devices, app_id: str, as_json: bool
) -> int:
    """Put a package into the demo app on a phone, without building the app again.

    Only what changed is pushed, by checksum. The app must be installed, on Android as a debug
    build; it is ended, and its next start loads the package.
    """
    from mobilepack.commands import deploy

    chosen = existing(package)
    places = deploy.places(devices.names, devices.server, app_id=app_id)
    with steps("deploy", quiet=as_json) as progress:

        def tell(name: str, size: int) -> None:
            progress.step(f"push {name} ({render.size(size)})", 0, 1)

        outcomes = device_options.on_each(
            places, lambda place: deploy.deploy(chosen, place, tell), lambda place: place.serial
        )
    show = functools.partial(_show, as_json=as_json)
    return device_options.conclude("deploy", outcomes, show, as_json=as_json)


def _show(done: Deployed, *, as_json: bool) -> int:
    for what in ("pushed", "copied", "kept", "removed"):
        names = getattr(done, what)
        if names and not as_json:
            render.line(f"{done.device}: {what} {', '.join(names)}")
    return 0
