"""`mobilepack app`."""

from __future__ import annotations

from pathlib import Path

import click

from mobilepack.cli import options, render
from mobilepack.cli.packages import existing


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


@command.command(
    epilog="""\b
Example
  mobilepack app android my-app
  mobilepack app android my-app out/mine/xnnpack --application-id com.example.chat
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("package", required=False, metavar="[PACKAGE]", type=click.Path(path_type=Path))
@click.option(
    "--application-id",
    default="mobilepack.demo",
    show_default=True,
    metavar="ID",
    help="Of the installed app; two apps on one phone need two.",
)
@options.json_option
def android(out: Path, package: Path | None, application_id: str, as_json: bool) -> None:
    """Write a Gradle project for Android Studio to the folder OUT.

    With PACKAGE its files become assets of the app; without one, `mobilepack deploy` brings it.
    """
    from mobilepack.commands.app import AppOptions, android_app

    bundled = None if package is None else existing(package)
    written = android_app(AppOptions(out, bundled, application_id))
    if as_json:
        render.document("app", render.plain(written))
        return
    total = sum(written.bundled.values())
    render.line(f"{written.folder}: open it in Android Studio, run the variant {written.variant}")
    if written.bundled:
        render.line(f"bundled: {', '.join(written.bundled)} ({render.size(total)})")
    else:
        app = "" if application_id == "mobilepack.demo" else f" --app-id {application_id}"
        render.line(f"then bring a package: mobilepack deploy PACKAGE -d SERIAL{app}")


@command.command(
    epilog="""\b
Example
  mobilepack app ios my-app
  mobilepack app ios my-app out/mine/xnnpack --application-id com.example.chat
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("package", required=False, metavar="[PACKAGE]", type=click.Path(path_type=Path))
@click.option(
    "--application-id",
    default="mobilepack.demo",
    show_default=True,
    metavar="ID",
    help="Bundle identifier; signing for an iPhone takes one that is your own.",
)
@options.json_option
def ios(out: Path, package: Path | None, application_id: str, as_json: bool) -> None:
    """Write an XcodeGen project to the folder OUT; building it takes a Mac.

    With PACKAGE its files go into the app's bundle; without one, `mobilepack deploy` brings it.
    """
    from mobilepack.commands.app import AppOptions
    from mobilepack.commands.app_ios import ios_app

    bundled = None if package is None else existing(package)
    written = ios_app(AppOptions(out, bundled, application_id))
    if as_json:
        render.document("app", render.plain(written))
        return
    total = sum(written.bundled.values())
    render.line(f"{written.folder}: on a Mac, xcodegen generate, then build {written.variant}")
    if written.bundled:
        render.line(f"bundled: {', '.join(written.bundled)} ({render.size(total)})")
    else:
        app = "" if application_id == "mobilepack.demo" else f" --app-id {application_id}"
        render.line(f"then bring a package: mobilepack deploy PACKAGE -d UDID{app}")
