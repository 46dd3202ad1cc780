"""Medians and ratios are what a reader of the results sees first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.summary import HIGHER_IS_BETTER, ratio, round_metrics

_SPEEDS = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=9)


def _samples() -> dict[str, object]:
    return {
        "load_ns": 2_000_000,
        "first_eval_ns": 1_000_000,
        "prefill_ns": {"128": [10**9, 10**9, 5 * 10**9], "512": [2 * 10**9]},
        "decode_short_ns": [10_000_000, 10_000_000, 90_000_000],
        "decode_long_ns": [20_000_000],
        "memory_bytes": {"base": 100, "loaded": 150, "end": 300, "peak": 400},
    }


def test_a_round_is_reduced_by_medians_so_one_slow_repetition_does_not_count() -> None:
    metrics = round_metrics(_samples())
    assert metrics["prefill_128_tok_per_s"] == pytest.approx(128)
    assert metrics["prefill_512_tok_per_s"] == pytest.approx(256)
    assert metrics["decode_short_tok_per_s"] == pytest.approx(100)
    assert metrics["decode_long_over_short"] == pytest.approx(0.5)


def test_first_eval_is_part_of_the_second_load_figure_only() -> None:
    metrics = round_metrics(_samples())
    assert (metrics["load_ms"], metrics["load_and_first_eval_ms"]) == (2, 3)


def test_every_metric_of_a_round_has_a_direction() -> None:
    assert set(round_metrics(_samples())) == set(HIGHER_IS_BETTER)


@settings(deadline=None)  # a busy machine is not a failure
@given(_SPEEDS)
def test_a_series_compared_with_itself_is_one_everywhere(speeds: list[float]) -> None:
    same = ratio(speeds, speeds)
    assert (same.of_medians, same.smallest, same.largest) == (1.0, 1.0, 1.0)


@settings(deadline=None)  # a busy machine is not a failure
@given(_SPEEDS, st.floats(1.01, 100))
def test_per_round_ratios_cancel_what_slows_both_engines(
    speeds: list[float], factor: float
) -> None:
    faster = ratio([factor * speed for speed in speeds], speeds)
    assert faster.smallest == pytest.approx(factor)
    assert faster.largest == pytest.approx(factor)


def test_series_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ratio([1.0, 2.0], [1.0])
