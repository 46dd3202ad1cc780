"""The waterfall as a table: every level, what it lost, and the tolerances beneath the values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mobilepack.cli import render

if TYPE_CHECKING:
    from mobilepack.contract.parity import Level, Share


def merged(listed: Sequence[Sequence[Level]]) -> list[Level]:
    """Return the levels of several devices of one package, each once, in order of the ladder."""
    from mobilepack.commands.verdict import LADDER

    found: dict[tuple[str, str], Level] = {}
    for level in (level for levels in listed for level in levels):
        key = (level.rung, level.where)
        if key not in found or found[key].status == "not run":
            found[key] = level
    stood = {rung for (rung, _), level in found.items() if level.status != "not run"}
    kept = [
        level
        for level in found.values()
        if level.status != "not run" or level.where or level.rung not in stood
    ]
    return sorted(kept, key=lambda level: LADDER.index(level.rung))


def print_waterfall(levels: Sequence[Level]) -> None:
    """Print the table and, below it, why levels broke or did not run."""
    from mobilepack.report.losses import COLUMNS

    compared = max((level.compared for level in levels), default=0)
    render.line(f"waterfall: {compared} positions of the same teacher-forced tokens")
    header = ("rung", "against", *(title for _, title in COLUMNS), "greedy", "task", "")
    render.table(header, [row for level in levels for row in _rows(level)])
    for level in levels:
        if level.reason:
            render.line(f"{render.status(level.status)}  {_name(level)}: {level.reason}")
    for reason in _limits(levels):
        render.line(reason)


def _rows(level: Level) -> list[tuple[str, ...]]:
    from mobilepack.report.losses import COLUMNS, cells

    name, verdict = _name(level), render.status(level.status)
    tail = (_share(level.greedy), _share(level.task), verdict)
    if not level.losses:
        return [(name, "", *("" for _ in COLUMNS), *tail)]
    rows: list[tuple[str, ...]] = []
    for index, loss in enumerate(level.losses):
        found = cells(loss)
        values = [click.style(c.value, fg="red") if c.broken else c.value for c in found]
        rows.append((name, loss.against, *values, *tail))
        if index:
            rows[-1] = ("", loss.against, *values, "", "", "")
        if any(cell.limit for cell in found):
            rows.append(("", "", *(cell.limit for cell in found), "", "", ""))
    return rows


def _name(level: Level) -> str:
    extra = [text for text in (level.where, level.runtime) if text]
    return level.rung + (f" ({', '.join(extra)})" if extra and level.where else "")


def _limits(levels: Sequence[Level]) -> list[str]:
    """Return where the tolerances come from, each once."""
    found: dict[str, None] = {}
    for level in levels:
        for loss in level.losses:
            for metric in loss.metrics:
                if metric.limit is not None and metric.reason:
                    found[f"limit of {metric.name} {metric.limit:.4g}: {metric.reason}"] = None
    return list(found)


def _share(share: Share | None) -> str:
    return "" if share is None else f"{share.count}/{share.of}"
