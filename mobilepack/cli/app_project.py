"""`mobilepack app`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.cli.packages import existing

if TYPE_CHECKING:
    from mobilepack.commands.app import AppOptions, WrittenApp

DEFAULT_ID = "mobilepack.demo"


@click.group(
    epilog="""\b
Example
  mobilepack app android my-app out/mine/xnnpack
  mobilepack app ios my-app out/mine/xnnpack
"""
)
def command() -> None:
    """Write the sources of a demo app with a package wired in.

    The project is yours to change: a chat, and a screen that carries out run plans.
    """


def _project(own_id: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the arguments and options of a verb that writes a project."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        verb = options.json_option(verb)
        verb = click.option(
            "--application-id",
            default=DEFAULT_ID,
            show_default=True,
            metavar="ID",
            help=own_id,
        )(verb)
        path = click.Path(path_type=Path)
        verb = click.argument("package", required=False, metavar="[PACKAGE]", type=path)(verb)
        return click.argument("out", type=path)(verb)

    return decorate


@command.command(
    epilog="""\b
Example
  mobilepack app android my-app
  mobilepack app android my-app out/mine/xnnpack --application-id com.example.chat
"""
)
@_project("Of the installed app; two apps on one phone need two.")
def android(out: Path, package: Path | None, application_id: str, as_json: bool) -> None:
    """Write a Gradle project for Android Studio to the folder OUT.

    With PACKAGE its files become assets of the app; without one, `mobilepack deploy` brings it.
    """
    from mobilepack.commands.app import android_app

    written = android_app(_wanted(out, package, application_id))
    next_step = f"open it in Android Studio, run the variant {written.variant}"
    _tell(written, next_step, application_id, "SERIAL", as_json)


@command.command(
    epilog="""\b
Example
  mobilepack app ios my-app
  mobilepack app ios my-app out/mine/xnnpack --application-id com.example.chat
"""
)
@_project("Bundle identifier; signing for an iPhone takes one that is your own.")
def ios(out: Path, package: Path | None, application_id: str, as_json: bool) -> None:
    """Write an XcodeGen project to the folder OUT; building it takes a Mac.

    With PACKAGE its files go into the app's bundle; without one, `mobilepack deploy` brings it.
    """
    from mobilepack.commands.app_ios import ios_app

    written = ios_app(_wanted(out, package, application_id))
    next_step = f"on a Mac, xcodegen generate, then build {written.variant}"
    _tell(written, next_step, application_id, "UDID", as_json)


def _wanted(out: Path, package: Path | None, application_id: str) -> AppOptions:
    from mobilepack.commands.app import AppOptions

    return AppOptions(out, None if package is None else existing(package), application_id)


def _tell(
    written: WrittenApp, next_step: str, application_id: str, device: str, as_json: bool
) -> None:
    if as_json:
        render.document("app", render.plain(written))
        return
    render.line(f"{written.folder}: {next_step}")
    if written.bundled:
        total = sum(written.bundled.values())
        render.line(f"bundled: {', '.join(written.bundled)} ({render.size(total)})")
    else:
        app = "" if application_id == DEFAULT_ID else f" --app-id {application_id}"
        render.line(f"then bring a package: mobilepack deploy PACKAGE -d {device}{app}")
