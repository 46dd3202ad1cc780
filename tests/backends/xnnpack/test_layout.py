"""The layout of a program file: regions, segments and names, before any weight is read."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.backends.xnnpack.layout import (
    Bytes,
    FileMap,
    HeadRows,
    Layout,
    Region,
    Vector,
    filled,
)

ALIGNMENT = 128


def assert_sound(layout: FileMap) -> None:
    """Assert that regions are apart and inside, and that segments cover nothing beyond the end."""
    end = 0
    for region in layout.regions:
        assert region.offset % ALIGNMENT == 0
        assert region.offset >= end
        end = region.offset + region.size
    assert layout.size == end
    assert all(start + size <= layout.size for start, size in layout.segments)
    indices = list(layout.named.values())
    assert len(set(indices)) == len(indices)
    assert all(0 <= index < len(layout.segments) for index in indices)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=20))
def test_regions_are_aligned_and_do_not_overlap(parts: list[tuple[bool, int]]) -> None:
    layout = Layout()
    for constant, size in parts:
        (layout.constant if constant else layout.segment)(size, Bytes(bytes(size)))
    placed = layout.place()
    assert_sound(placed)
    assert sorted(region.size for region in placed.regions) == sorted(size for _, size in parts)
    assert [size for constant, size in parts if not constant] == [
        s for _, s in placed.segments[:-1]
    ]


def test_a_name_is_reserved_once() -> None:
    layout = Layout()
    layout.name("w", 100, Vector("w"))
    layout.name("w", 100, Vector("w"))
    assert layout.place().regions == (Region(0, 100, Vector("w")),)
    assert layout.named_bytes("w") == 100


def test_a_kept_constant_is_reserved_once() -> None:
    layout = Layout()
    assert [layout.keep(key, 8, Vector(key)) for key in ("a", "b", "a")] == [1, 2, 1]
    assert layout.has("b")
    assert not layout.has("c")
    assert len(layout.place().constants) == 2


def test_equal_numbers_have_one_key_per_length_and_value() -> None:
    made = [filled(*a) for a in ((3, 0.5), (3, 0.5), (4, 0.5), (3, 0.25), (3, 1e-5))]
    assert len({key for key, _, _ in made}) == 4
    assert made[0][1:] == (12, Bytes(struct.pack("<3f", 0.5, 0.5, 0.5)))


def test_an_alias_has_no_bytes_of_its_own() -> None:
    layout = Layout()
    layout.segment(10, Bytes(bytes(10)))
    layout.name_alias("head.weight", layout.constant(400, Vector("embed.weight")))
    placed = layout.place()
    assert len(placed.regions) == 2
    assert placed.segments[placed.named["head.weight"]] == (0, 400)
    assert_sound(placed)


def test_the_constant_segment_spans_its_tensors_and_nothing_else() -> None:
    layout = Layout()
    layout.segment(50, Bytes(b""))
    assert [layout.constant(size, Bytes(b"")) for size in (10, 200, 30)] == [1, 2, 3]
    placed = layout.place()
    start, size = placed.segments[placed.constant_segment]
    assert (start, size) == (0, 2 * ALIGNMENT + ALIGNMENT + 30)
    assert all(start <= offset < start + size for offset in placed.constants)
    assert placed.segments[0][0] >= start + size
    assert_sound(placed)


@given(heads=st.integers(1, 9), period=st.integers(2, 16), data=st.data())
def test_head_rows_count_what_they_choose(heads: int, period: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, period - 1))
    stop = data.draw(st.integers(start + 1, period))
    chosen = [row for row in range(heads * period) if start <= row % period < stop]
    assert HeadRows(period, start, stop).count(heads * period) == len(chosen)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        Layout().named_bytes("w")
