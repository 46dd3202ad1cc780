"""Statistics of samples keep their order relations, and a verdict says what it rests on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.run_result import Memory
from mobilepack.metrics.latency import hottest, summarise, tok_per_s, trust
from mobilepack.metrics.memory import loaded_bytes, peak_over_base_bytes


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=30))
def test_centre_and_interval_lie_within_the_samples(values: list[float]) -> None:
    found = summarise(values, resamples=50)
    room = 1e-9 * max(values)
    for value in (found.median, found.p90, found.low, found.high, found.mean):
        assert found.minimum - room <= value <= found.maximum + room
    assert found.low <= found.high
    assert found.median <= found.p90 + room
    assert found.sd >= 0
    assert found.samples == len(values)


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=20))
def test_the_same_samples_give_the_same_interval(values: list[float]) -> None:
    first, again = summarise(values, resamples=50), summarise(values, resamples=50)
    assert first == again
    other = summarise(values, resamples=50, seed=1)
    assert (first.median, first.verdict) == (other.median, other.verdict)


def test_sd_is_the_sample_standard_deviation_as_in_llama_bench() -> None:
    assert summarise([1.0, 2.0, 3.0]).sd == 1.0
    assert summarise([5.0]).sd == 0.0


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([10.0, 10.1, 9.9, 10.0, 10.1], "steady"),
        ([10.0, 14.0, 9.0, 10.0, 10.1, 13.0, 9.0, 10.2], "noisy"),
        ([10.0, 10.0, 10.1, 11.0, 11.1, 11.0], "drifting"),
        ([10.0, 10.0], "too few"),
    ],
)
def test_verdicts(values: list[float], verdict: str) -> None:
    found = summarise(values)
    assert found.verdict == verdict
    assert str(len(values)) in found.reason


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_tokens_per_second() -> None:
    assert tok_per_s(512, 5e8) == 1024
    assert tok_per_s(1, 0) == 1e9


def test_memory_is_never_negative() -> None:
    memory = Memory(before_load_bytes=10, after_load_bytes=7, peak_bytes=30)
    assert (loaded_bytes(memory), peak_over_base_bytes(memory)) == (0, 20)


COLD = {"temperatures_c_before": "cpu AP 30; skin S 29", "temperatures_c_after": "cpu AP 31"}
HOT = {"temperatures_c_before": "cpu AP 30", "temperatures_c_after": "cpu AP 44.5"}
STEADY = [10.0, 10.1, 9.9, 10.0, 10.05, 9.95, 10.0, 10.1]
SLOWER = [10.0, 10.1, 10.2, 10.4, 11.2, 11.6, 11.9, 12.1]
NOISE = [10.0, 14.0, 9.0, 13.0, 8.0, 12.0, 10.0, 15.0]


class TestTrust:
    """Synthetic traces of each kind."""

    @pytest.mark.parametrize(
        ("values", "conditions", "verdict"),
        [
            (STEADY, COLD, "VALID"),
            (STEADY, {}, "VALID"),
            (NOISE, COLD, "NOISY"),
            (STEADY[:3], COLD, "NOISY"),
            (SLOWER, HOT, "THROTTLED"),
            (SLOWER, COLD, "NOISY"),
            (SLOWER, {}, "NOISY"),
            (STEADY, COLD | {"thermal_status_after": "severe"}, "THROTTLED"),
            (STEADY, COLD | {"thermal_status_after": "light"}, "VALID"),
        ],
    )
    def test_a_phone(self, values: list[float], conditions: dict[str, str], verdict: str) -> None:
        found, why = trust([summarise(values)], representative=True, conditions=conditions)
        assert found == verdict
        assert why

    def test_what_is_no_phone_is_never_valid(self) -> None:
        found, why = trust([summarise(STEADY)], representative=False, conditions=COLD)
        assert found == "NOT REPRESENTATIVE"
        assert "steady" in why

    @pytest.mark.parametrize("text", ["", "unknown", "cpu AP", ";;", "cpu AP nan-ish"])
    def test_temperatures_that_nobody_told(self, text: str) -> None:
        assert hottest(text) is None
