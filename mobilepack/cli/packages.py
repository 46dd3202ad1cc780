"""Which package a verb works on: the one named, or the one that `build` writes by default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mobilepack.cli import options, render
from mobilepack.errors import MissingError

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_PACKAGE = options.DEFAULT_OUT / options.DEFAULT_TARGET


def package_argument(function: F) -> F:
    """Add `[PACKAGE]`."""
    return click.argument(
        "package", required=False, metavar="[PACKAGE]", type=click.Path(path_type=Path)
    )(function)


def package_arguments(function: F) -> F:
    """Add `[PACKAGE]...`; the function gets them as `named`."""
    return click.argument(
        "named", nargs=-1, metavar="[PACKAGE]...", type=click.Path(path_type=Path)
    )(function)


def existing(package: Path | None) -> Path:
    """Return the package to work on, without building one.

    Raises:
        MissingError: It is a checkpoint, or none was named and the default one is not there.
    """
    if package is None:
        if is_package(DEFAULT_PACKAGE):
            return DEFAULT_PACKAGE
        raise MissingError(
            "no-package",
            "no PACKAGE was named, and there is none at the default place",
            why=f"there is no {DEFAULT_PACKAGE / 'manifest.json'}",
            next="run `mobilepack build`, or name the folder of a package",
        )
    if (package / "config.json").is_file() and not is_package(package):
        raise MissingError(
            "not-a-package",
            f"{package} is a checkpoint, not a package",
            why="it holds a config.json and no manifest.json",
            next=f"run `mobilepack build {package}`, then name the package it writes",
        )
    return package


def existing_or_built(package: Path | None, *, quiet: bool) -> Path:
    """Return the package to work on; with none named or built, build the embedded model's."""
    if package is not None or is_package(DEFAULT_PACKAGE):
        chosen = existing(package)
        if package is None and not quiet:
            render.message(f"package: {chosen}")
        return chosen
    from mobilepack.cli.build import build_embedded

    render.message(f"package: none at {DEFAULT_PACKAGE} yet; building the embedded model first")
    return build_embedded(options.DEFAULT_OUT, quiet=quiet)


def is_package(folder: Path) -> bool:
    """Say whether a folder holds a package's manifest."""
    return (folder / "manifest.json").is_file()
