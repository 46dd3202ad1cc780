"""The layout of a program file: regions, segments and names, before any weight is read."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.backends.xnnpack.layout import Bytes, HeadRows, Layout, Region, Vector

ALIGNMENT = 128


def assert_sound(layout: Layout) -> None:
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


@given(sizes=st.lists(st.integers(0, 1000), max_size=20))
def test_regions_are_aligned_and_do_not_overlap(sizes: list[int]) -> None:
    layout = Layout()
    offsets = [layout.add(size, Bytes(b"")) for size in sizes]
    assert offsets == [region.offset for region in layout.regions]
    assert_sound(layout)


def test_a_name_is_reserved_once() -> None:
    layout = Layout()
    layout.name("w", 100, Vector("w"))
    layout.name("w", 100, Vector("w"))
    assert layout.regions == [Region(0, 100, Vector("w"))]
    assert layout.named_bytes("w") == 100
    assert_sound(layout)


def test_equal_numbers_are_stored_once_per_length_and_value() -> None:
    layout = Layout()
    keys = [layout.filled(*a) for a in ((3, 0.5), (3, 0.5), (4, 0.5), (3, 0.25), (3, 1e-5))]
    assert len(set(keys)) == len(layout.regions) == 4
    content = layout.regions[0].content
    assert isinstance(content, Bytes)
    assert content.data == struct.pack("<3f", 0.5, 0.5, 0.5)


def test_an_alias_has_no_bytes_of_its_own() -> None:
    layout = Layout()
    layout.constant(400, Vector("embed.weight"))
    layout.name_alias("head.weight", 0, 400)
    assert len(layout.regions) == 1
    assert layout.segments[layout.named["head.weight"]] == (0, 400)
    assert_sound(layout)


def test_the_constant_segment_spans_its_tensors() -> None:
    layout = Layout()
    assert [layout.constant(size, Bytes(b"")) for size in (10, 200, 30)] == [1, 2, 3]
    layout.close_constants()
    layout.segment(50, Bytes(b""))
    start, size = layout.segments[layout.constant_segment]
    assert (start, size) == (0, 2 * ALIGNMENT + ALIGNMENT + 30)
    assert all(start <= offset < start + size for offset in layout.constants)
    assert layout.segments[-1][0] >= start + size
    assert_sound(layout)


@given(heads=st.integers(1, 9), period=st.integers(2, 16), data=st.data())
def test_head_rows_count_what_they_choose(heads: int, period: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, period - 1))
    stop = data.draw(st.integers(start + 1, period))
    chosen = [row for row in range(heads * period) if start <= row % period < stop]
    assert HeadRows(period, start, stop).count(heads * period) == len(chosen)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        Layout().named_bytes("w")
