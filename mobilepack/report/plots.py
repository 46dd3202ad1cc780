"""Pictures of a campaign: lines and stacked bars as SVG files that follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720.0, 64.0, 168.0, 34.0, 44.0
LINES_HEIGHT, ROW = 320.0, 26.0
BAR_LEFT, BAR_RIGHT = 190.0, 84.0
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #1f2937 }
.title { font-weight: 600; font-size: 14px }
.axis, .grid { stroke: #9ca3af; fill: none } .grid { opacity: .35 } .quiet { fill: #6b7280 }
@media (prefers-color-scheme: dark) { text { fill: #e5e7eb } .quiet { fill: #9ca3af } }
</style>"""


@dataclass(frozen=True, slots=True)
class Line:
    """A named run of points (x, y)."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A named row of segments (label, value), one after the other."""

    name: str
    segments: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        """Where it ends."""
        return sum(value for _, value in self.segments)


def lines(title: str, axes: tuple[str, str], drawn: Sequence[Line]) -> str:
    """Return an SVG of lines from (0, 0) on; `axes` are the labels of x and y with units."""
    points = [point for line in drawn for point in line.points]
    x_ticks = ticks(max((x for x, _ in points), default=1.0))
    y_ticks = ticks(max((y for _, y in points), default=1.0))

    def place(x: float, y: float) -> tuple[float, float]:
        wide = WIDTH - LEFT - RIGHT
        high = LINES_HEIGHT - TOP - BOTTOM
        return LEFT + x / x_ticks[-1] * wide, LINES_HEIGHT - BOTTOM - y / y_ticks[-1] * high

    parts = [_text(LEFT, 18, title, "title")]
    for x in x_ticks:
        at, base = place(x, 0)
        parts += [
            _path("grid", [(at, TOP), (at, base)]),
            _text(at, base + 16, _number(x), "", "middle"),
        ]
    for y in y_ticks:
        start, at = place(0, y)
        parts += [
            _path("grid", [(start, at), (WIDTH - RIGHT, at)]),
            _text(start - 6, at + 4, _number(y), "", "end"),
        ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, LINES_HEIGHT - 8, axes[0], "quiet", "middle"))
    parts.append(_text(LEFT - 48, TOP - 4, axes[1], "quiet"))
    for index, line in enumerate(drawn):
        colour = COLOURS[index % len(COLOURS)]
        placed = [place(x, y) for x, y in line.points]
        parts.append(_path("", placed, f' stroke="{colour}" fill="none" stroke-width="2"'))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in placed]
        parts += _key(WIDTH - RIGHT + 12, TOP + 8 + 18 * index, colour, line.name)
    return _svg(title, LINES_HEIGHT, parts)


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Return an SVG of stacked bars, one per row, with the total behind it."""
    labels = list(dict.fromkeys(label for row in rows for label, _ in row.segments))
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    most = max((row.total for row in rows), default=1.0) or 1.0
    keyed = len(labels) > 1
    top = TOP + (20 if keyed else 0)
    parts = [_text(8, 18, title, "title")]
    at = 8.0
    for label in labels if keyed else ():
        parts += _key(at, TOP + 2, colour[label], label)
        at += 30 + 7 * len(label)
    for index, row in enumerate(rows):
        y = top + ROW * index
        parts.append(_text(BAR_LEFT - 8, y + 15, row.name, "", "end"))
        x = BAR_LEFT
        for label, value in row.segments:
            wide = value / most * (WIDTH - BAR_LEFT - BAR_RIGHT)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 3:.1f}" width="{max(wide, 0.5):.1f}" height="17"'
                f' fill="{colour[label]}"><title>{escape(label)}: {_number(value)} {escape(unit)}'
                "</title></rect>"
            )
            x += wide
        parts.append(_text(x + 6, y + 16, f"{_number(row.total)} {unit}", "quiet"))
    return _svg(title, top + ROW * len(rows) + 10, parts)


def ticks(most: float, wanted: int = 5) -> tuple[float, ...]:
    """Return round numbers from 0 to at least `most`: steps of 1, 2 or 5 times a power of ten."""
    if not math.isfinite(most) or most <= 0:
        return (0.0, 1.0)
    rough = most / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * (1 - 1e-9))
    count = math.ceil(most / step - 1e-9)
    return tuple(round(step * i, 10) for i in range(count + 1))


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}"'
        f' role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, _STYLE, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style} text-anchor="{anchor}">{escape(text)}</text>'


def _path(kind: str, points: Sequence[tuple[float, float]], more: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<polyline{style}{more} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _key(x: float, y: float, colour: str, label: str) -> list[str]:
    swatch = f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" fill="{colour}"/>'
    return [swatch, _text(x + 15, y, label, "")]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
