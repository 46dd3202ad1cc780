"""Progress on stderr: a bar on a terminal, one plain line per step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from mobilepack.cli import render

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Steps(Protocol):
    """Shows that step `done` of `total` begins."""

    def step(self, label: str, done: float, total: float) -> None:
        """Show a step; `done == total` is the end."""


class Lines:
    """One line for each new label, for logs and pipes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last = ""

    def step(self, label: str, done: float, total: float) -> None:
        """Print the label unless it was printed last."""
        if label and label != self._last:
            render.message(f"{self._title}: {label}")
            self._last = label


class Silent:
    """Nothing, for `--json`."""

    def step(self, label: str, done: float, total: float) -> None:
        """Ignore a step."""


class Bar:
    """A bar that is overwritten, for terminals."""

    def __init__(self, title: str, progress: RichProgress) -> None:
        self._progress = progress
        self._title = title
        self._task = progress.add_task(title, total=None)

    def step(self, label: str, done: float, total: float) -> None:
        """Move the bar and name the step."""
        text = f"{self._title}: {label}" if label else self._title
        self._progress.update(self._task, description=text, completed=done, total=total)


@contextmanager
def steps(title: str, *, quiet: bool = False) -> Iterator[Steps]:
    """Show the progress of one piece of work; what is shown depends on stderr."""
    if quiet:
        yield Silent()
    elif not sys.stderr.isatty():
        yield Lines(title)
    else:
        with _bar() as progress:
            yield Bar(title, progress)


def _bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
