"""Weights as Core ML stores them: near the original, and as near as their bits allow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilepack.backends.coreml.encode import palette, rounded
from mobilepack.backends.coreml.pieces import chunks, spans, table_spans


def matrix(rows: int = 32, columns: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
def test_a_number_is_off_by_half_a_step_at_most(bits: int, most: int) -> None:
    rows = matrix()
    found = rounded(rows, bits)
    scales = found.scales.astype(np.float32)[:, None]
    error = np.abs(found.values * scales - rows.numpy())
    # An fp16 scale may lie 2^-11 below its row's: then the largest number is clipped.
    assert (error <= 0.5 * scales + rows.abs().amax(1, keepdim=True).numpy() * 2.0**-11).all()
    assert np.abs(found.values).max() == most


def test_a_row_of_zeros_stays_zero() -> None:
    found = rounded(torch.zeros(2, 8), 4)
    assert not found.values.any()
    assert np.isfinite(found.scales).all()
    assert (found.scales > 0).all()


@pytest.mark.parametrize("group", [8, 16])
def test_sixteen_different_numbers_are_stored_exactly(group: int) -> None:
    values = (torch.arange(16.0) - 7) / 8
    rows = values[torch.randint(0, 16, (32, 96), generator=torch.Generator().manual_seed(0))]
    found = palette(rows, group)
    tables = np.repeat(found.tables, group, axis=0)
    again = np.take_along_axis(tables, found.places.astype(np.int64), 1)
    np.testing.assert_array_equal(again, rows.numpy())


def test_tables_miss_less_than_equal_steps_with_as_many_scales() -> None:
    """A normal distribution: Max 1960, table I: 16 levels miss by 0.009497 of the variance."""
    rows = matrix(64, 512)
    found = palette(rows, 16)
    tables = np.repeat(found.tables.astype(np.float32), 16, axis=0)
    again = np.take_along_axis(tables, found.places.astype(np.int64), 1)
    missed = float(((again - rows.numpy()) ** 2).mean() / rows.var())
    assert missed == pytest.approx(0.009497, rel=0.03)


def test_spans_cover_everything_and_begin_at_multiples() -> None:
    for rows, most, multiple in (
        (1536, 1024, 32),
        (1024, 1024, 32),
        (100, 30, 1),
        (5000, 1024, 32),
    ):
        found = spans(rows, most, multiple)
        assert [span.start for span in found[1:]] == [span.stop for span in found[:-1]]
        assert (found[0].start, found[-1].stop) == (0, rows)
        assert all(span.start % multiple == 0 and span.count <= most for span in found)


@pytest.mark.parametrize(
    ("vocabulary", "count", "equal"),
    [(2048, 1, True), (49152, 3, True), (128256, 8, True), (151936, 16, True), (50261, 4, False)],
)
def test_a_vocabulary_is_cut_into_equal_pieces_where_few_divide_it(
    vocabulary: int, count: int, equal: bool
) -> None:
    found = table_spans(vocabulary)
    assert len(found) == count
    assert (len({span.count for span in found}) == 1) == equal
    assert sum(span.count for span in found) == vocabulary
    assert all(span.count <= 16_384 for span in found)


def test_layers_are_cut_at_the_limit() -> None:
    assert chunks([5, 5, 5, 5], 10) == (range(2), range(2, 4))
    assert chunks([5, 5, 5], 100) == (range(3),)
    assert chunks([50, 5], 10) == (range(1), range(1, 2))  # a layer is never cut
