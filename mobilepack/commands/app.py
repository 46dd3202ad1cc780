"""app: a copy of a demo app's sources with the user's package wired in."""

from __future__ import annotations

import fnmatch
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilepack.commands.app_files import android_files
from mobilepack.contract.package import open_package
from mobilepack.errors import UsageError

DemoName = Literal["android_demo", "ios_demo"]
APPLICATION_ID = "mobilepack.demo"
ASSETS = "app/src/main/assets/package"
_GRADLE = "app/build.gradle.kts"
_ANDROID_ID = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
# What tools leave in a checkout; a packaged copy has none of it.
_LEFTOVERS = (
    "build",
    ".build",
    ".gradle",
    ".idea",
    ".kotlin",
    "local.properties",
    "assets",
    "*.pyc",
)


@dataclass(frozen=True, slots=True)
class AppOptions:
    """Options of `mobilepack app`.

    Attributes:
        out: Folder that the project is written to; must be absent or empty.
        package: What the app bundles; None leaves it to `mobilepack deploy`.
        application_id: Of the installed app.
    """

    out: Path
    package: Path | None = None
    application_id: str = APPLICATION_ID


@dataclass(frozen=True, slots=True)
class WrittenApp:
    """A project that was written.

    Attributes:
        variant: Which build variant runs the package.
        bundled: Files of the package in the app, with their bytes; empty without a package.
    """

    folder: Path
    variant: str
    application_id: str
    bundled: dict[str, int]


def android_app(options: AppOptions) -> WrittenApp:
    """Write a Gradle project, whole or not at all.

    Raises:
        UsageError: The folder holds something, the id is none, or the package is not for Android.
        MissingError: There is no package where one was named.
    """
    if not _ANDROID_ID.fullmatch(options.application_id):
        raise UsageError(
            "application-id",
            f"no app can have the id {options.application_id!r}",
            why="it takes two or more words of ASCII letters, digits and _, joined by dots",
            next="--application-id com.example.chat",
        )
    check_free(options.out)
    variant, bundled = "xnnpackDebug", {}
    aside = copied_aside("android_demo", options.out)
    try:
        gradle = aside / _GRADLE
        was, now = (f'applicationId = "{x}"' for x in (APPLICATION_ID, options.application_id))
        gradle.write_text(gradle.read_text("utf-8").replace(was, now), "utf-8")
        if options.package is not None:
            package = open_package(options.package)
            with android_files(package) as files:
                bundled = bundle(files, aside / ASSETS)
            variant = f"{package.manifest.plan.backend}Debug"
        rename(aside, options.out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return WrittenApp(options.out, variant, options.application_id, bundled)


def demo_sources(name: DemoName) -> Path:
    """Return the folder of a demo app's sources: packaged, or of a source checkout.

    Raises:
        UsageError: Neither is there: the installation lacks files.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / f"_{name}", package.parent / name):
        if folder.is_dir():
            return folder
    raise UsageError(
        "no-sources",
        f"cannot find the sources of {name}",
        why=f"there is neither {package / f'_{name}'} nor {package.parent / name}",
        next="install mobilepack again",
    )


def check_free(out: Path) -> None:
    """Refuse a folder that holds something: it may be somebody's work.

    Raises:
        UsageError: It does, or it is no folder.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise UsageError(
            "folder-taken",
            f"cannot write a project to {out}",
            why="there is something already, and it may be your work",
            next="name a folder that is absent or empty",
        )


def copied_aside(name: DemoName, out: Path) -> Path:
    """Copy a demo app's sources to a new folder beside the one they are for, and return it.

    Raises:
        UsageError: The folder cannot be made.
    """
    aside = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(demo_sources(name), aside, ignore=_leftovers)
    except OSError as err:
        shutil.rmtree(aside, ignore_errors=True)
        raise UsageError(
            "unwritable-folder",
            f"cannot write a project to {out}",
            why=str(err),
            next="choose a folder that you may write to",
        ) from err
    return aside


def bundle(files: Mapping[str, Path], folder: Path) -> dict[str, int]:
    """Copy files to a new folder by their relative names; return the bytes of each."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return {name: path.stat().st_size for name, path in files.items()}


def rename(aside: Path, out: Path) -> None:
    """Give a finished project its name."""
    if out.is_dir():
        out.rmdir()
    aside.rename(out)


def _leftovers(_: str, names: list[str]) -> set[str]:
    return {name for name in names if any(fnmatch.fnmatch(name, one) for one in _LEFTOVERS)}
