"""Pictures hold what they were given, at the right places, and no markup of others."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.report.plots import Bar, Line, bars, lines, ticks

SVG = "{http://www.w3.org/2000/svg}"


@given(st.floats(1e-6, 1e12))
def test_ticks_are_round_and_reach_the_largest(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert most * (1 - 1e-9) <= found[-1] <= most * 2.1
    assert 3 <= len(found) <= 11


@pytest.mark.parametrize("most", [0.0, float("nan"), float("inf"), -1.0])
def test_ticks_of_nothing_are_an_axis(most: float) -> None:
    assert ticks(most) == (0.0, 1.0)


def test_bars_are_as_long_as_their_values() -> None:
    picture = bars("Memory", "MB", [Bar("a", (("x", 30.0), ("y", 10.0))), Bar("b", (("x", 20.0),))])
    root = ET.fromstring(picture)  # noqa: S314  our own
    drawn = [r for r in root.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None]
    widths = [float(r.attrib["width"]) for r in drawn]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)
    assert widths[2] == pytest.approx(2 * widths[1], rel=0.01)
    assert float(drawn[1].attrib["x"]) == pytest.approx(
        float(drawn[0].attrib["x"]) + widths[0], abs=0.11
    )


def test_lines_go_up_where_values_do() -> None:
    picture = lines("Time", ("token", "ms"), [Line("a", ((0.0, 0.0), (1.0, 2.0), (2.0, 4.0)))])
    root = ET.fromstring(picture)  # noqa: S314  our own
    places = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 > y1 > y2


@given(st.text())
def test_names_are_text(name: str) -> None:
    name = "".join(c for c in name if c.isprintable())
    for picture in (bars(name, "ms", [Bar(name, ((name, 1.0),))]),
                    lines(name, (name, name), [Line(name, ((1.0, 1.0),))])):  # fmt: skip
        root = ET.fromstring(picture)  # noqa: S314  our own
        assert root.attrib["aria-label"] == name
        assert {element.tag for element in root.iter()} <= {
            SVG + tag for tag in ("svg", "style", "text", "polyline", "circle", "rect", "title")
        }
