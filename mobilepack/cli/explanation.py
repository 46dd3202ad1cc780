"""Print what `verify --explain` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilepack.cli import render

if TYPE_CHECKING:
    from mobilepack.contract.explanation import Explanation

_SHOWN = 12  # layers of the growth


def print_explanation(one: Explanation) -> None:
    """Print outcome, place, error growth, cause and remedy."""
    render.line(
        f"explain: {render.status(one.outcome)}" + (f": {one.reason}" if one.reason else "")
    )
    if one.growth:
        render.table(
            ("layer", "error", "limit"),
            [(g.layer, _number(g.error), _number(g.limit)) for g in one.growth[:_SHOWN]],
        )
    if one.outcome != "found":
        return
    rows = (
        ("stage", one.stage or ""),
        ("layer", one.layer),
        ("operator", one.operator + (f" ({one.parameter})" if one.parameter else "")),
        ("first in", one.call),
        ("its error", _number(one.error) if one.error else ""),
        ("likely cause", _cause(one)),
        ("what to do", one.remedy),
    )
    for name, text in rows:
        if text:
            render.line(f"  {name}: {text}")
    for difference in one.differences[:_SHOWN]:
        render.line(f"  built otherwise: {difference}")


def _cause(one: Explanation) -> str:
    share = f" (explains {100 * one.explained:.1f} % of the error)" if one.explained else ""
    return f"{one.cause}: {one.text}{share}"


def _number(value: float) -> str:
    return "infinite" if value >= 1e300 else f"{value:.3g}"
