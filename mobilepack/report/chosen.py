"""Which of many rows are shown: a page and a summary stay readable with 10,000 of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

SHOWN = 200
"""Rows of one table at most; the rest is in the files that the page carries."""

_TELLING = ("failed", "unreadable", "not run")
T = TypeVar("T")


class Judged(Protocol):
    """What has a status."""

    @property
    def status(self) -> str: ...


J = TypeVar("J", bound=Judged)


def chosen(rows: Sequence[J]) -> tuple[J, ...]:
    """Return at most `SHOWN` rows in their order: what failed or is missing before the rest."""
    if len(rows) <= SHOWN:
        return tuple(rows)

    def rank(index: int) -> int:
        status = rows[index].status
        return _TELLING.index(status) if status in _TELLING else len(_TELLING)

    kept = sorted(sorted(range(len(rows)), key=rank)[:SHOWN])
    return tuple(rows[index] for index in kept)


def first(rows: Sequence[T]) -> tuple[T, ...]:
    """Return the first `SHOWN` rows."""
    return tuple(rows[:SHOWN])
