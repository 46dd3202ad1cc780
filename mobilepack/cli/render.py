"""Printing: data to stdout (tables or one JSON document), messages to stderr."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

Cell = str | int | float | None


def document(kind: str, payload: Mapping[str, object]) -> None:
    """Print the one JSON document of a run."""
    head = {"schema": f"mobilepack/{kind}/1", "kind": kind}
    click.echo(json.dumps({**head, **payload}, indent=2, ensure_ascii=False))


def plain(value: object) -> Any:
    """Return a record as JSON knows it: objects, arrays, numbers, text, null.

    Takes dataclasses, pydantic models (by alias), paths, mappings and sequences, nested.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def message(text: str) -> None:
    """Print to stderr."""
    click.echo(text, err=True)


def line(text: str = "") -> None:
    """Print a line of data to stdout."""
    click.echo(text)


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows in aligned columns, numbers to the right; headers say the unit."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max(len(head), *(len(click.unstyle(row[i])) for row in cells)) if cells else len(head)
        for i, head in enumerate(header)
    ]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    click.echo(click.style(_line(header, widths, numeric), bold=True))
    for row in cells:
        click.echo(_line(row, widths, numeric))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        padding = " " * (width - len(click.unstyle(cell)))
        parts.append(padding + cell if right else cell + padding)
    return "  ".join(parts).rstrip()


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) or cell is None


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


_COLOURS = {
    "ok": "green",
    "passed": "green",
    "failed": "red",
    "missing": "red",
    "unreadable": "red",
    "warning": "yellow",
    "not run": "yellow",
}


def status(word: str) -> str:
    """Return a status word in its colour; the word alone carries the meaning."""
    return click.style(word, fg=_COLOURS.get(word))


def model_name(source: str) -> str:
    """Return how people call a model: the embedded one by that name, not by its folder."""
    from mobilepack.models.zoo import embedded_path

    return "embedded model" if source == str(embedded_path()) else source


def size(count: int) -> str:
    """Return bytes for people, in powers of 1000 like file managers and app stores."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
