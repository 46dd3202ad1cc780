"""Options that several verbs share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mobilepack.errors import UsageError, near_misses

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_OUT = Path("out")
DEFAULT_TARGET = "xnnpack"


class Named(click.ParamType[str]):
    """One of a few names; a misspelt one is answered with the near miss."""

    name = "name"

    def __init__(self, allowed: tuple[str, ...], metavar: str | None = None) -> None:
        self.allowed = allowed
        self.metavar = metavar or "|".join(allowed)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return what the help page shows."""
        return self.metavar

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Check a value."""
        text = str(value)
        if text not in self.allowed:
            self.fail(f"{text!r} is not known; {near_misses(text, list(self.allowed))}", param, ctx)
        return text


def model_argument(function: F) -> F:
    """Add `[MODEL]` and its twin `--model`."""
    function = click.option(
        "-m",
        "--model",
        "model_option",
        metavar="MODEL",
        help="The same as the argument MODEL.",
    )(function)
    return click.argument("model", required=False, metavar="[MODEL]")(function)


def one_model(argument: str | None, option: str | None) -> str | None:
    """Return the model named by argument or option, None for the embedded one.

    Raises:
        UsageError: Both were given and differ.
    """
    if argument and option and argument != option:
        raise UsageError(
            "two-models",
            "cannot take two models",
            why=f"the argument says {argument!r}, --model says {option!r}",
            next="give one of them",
        )
    return argument or option


def source_options(function: F) -> F:
    """Add `--revision` and `--offline`, which say where a hub model comes from."""
    function = click.option(
        "--offline", is_flag=True, help="Use only files that are on this machine already."
    )(function)
    return click.option(
        "--revision", metavar="NAME", help="Branch, tag or commit of a model on the hub."
    )(function)


def output_option(function: F) -> F:
    """Add `--output-dir`."""
    return click.option(
        "-o",
        "--output-dir",
        "out",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_OUT,
        show_default=True,
        metavar="FOLDER",
        help="Where packages go, one folder per target.",
    )(function)


def threads_option(function: F) -> F:
    """Add `--threads`."""
    return click.option(
        "-t",
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Threads of the runtime. Default: one per physical core.",
    )(function)


def timeout_option(default_s: int) -> Callable[[F], F]:
    """Return what adds `--timeout`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=1),
        default=float(default_s),
        show_default=True,
        metavar="SECONDS",
        help="Stop and report after this long.",
    )


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document, result or error."
    )(function)


def all_of(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    """Add several options, listed in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def make_folder(folder: Path) -> None:
    """Make the folder that results go to, so that an impossible one fails before any work.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UsageError(
            "unwritable-folder",
            f"cannot make the folder {folder}",
            why=str(err),
            next="choose a folder that you may write to",
        ) from err
