"""Parity of x with itself is perfect and worsens with noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobilepack.contract.reference import Rows, record
from mobilepack.metrics import parity

LOGITS = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(2, 30)),
    elements=st.floats(-30, 30, width=32),
)


def _rows(logits: np.ndarray) -> Rows:
    following = [i % logits.shape[1] for i in range(len(logits) - 1)] + [-1]
    return record(logits, following, tuple(range(logits.shape[1])))


@given(LOGITS)
def test_of_x_with_itself_it_is_perfect(x: np.ndarray) -> None:
    rows = _rows(x)
    assert np.allclose(parity.cosine(x, x), 1.0)
    assert parity.sqnr_db(x, x) == parity.SQNR_CAP_DB
    assert parity.max_abs(x, x) == 0
    assert parity.rms_over_std(x, x) == 0
    assert parity.kl_full(x, x).max() == 0
    assert parity.top1_agreement(rows, rows) == 1
    assert parity.top1_agreement_but_ties(rows, rows, 0.0) == 1
    ratio = parity.ppl_ratio(rows, rows)
    if len(x) == 1:
        assert ratio is None
    else:
        assert ratio is not None
        assert ratio.ratio == ratio.low == ratio.high == 1
        assert np.abs(parity.delta_p(rows, rows)).max() == 0


def test_it_worsens_with_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 500)).astype(np.float32)
    noise = rng.standard_normal(x.shape).astype(np.float32)
    before = None
    for size in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        y = x + size * noise
        now = (
            -parity.sqnr_db(x, y),
            parity.max_abs(x, y),
            parity.rms_over_std(x, y),
            float(parity.kl_full(x, y).mean()),
            -float(parity.cosine(x, y).min()),
        )
        assert before is None or all(a < b for a, b in zip(before, now, strict=True))
        assert parity.rms_over_std(x, y) == pytest.approx(size, rel=0.05)
        assert parity.sqnr_db(x, y) == pytest.approx(-20 * math.log10(size), abs=0.5)
        before = now


@given(LOGITS, st.floats(-5, 5))
def test_kl_does_not_see_a_constant_added_to_all_logits(x: np.ndarray, shift: float) -> None:
    assert parity.kl_full(x, x.astype(np.float64) + shift).max() < 1e-9


@given(LOGITS, LOGITS)
def test_kl_is_never_negative_and_cosine_stays_within_one(x: np.ndarray, y: np.ndarray) -> None:
    n, m = min(x.shape[0], y.shape[0]), min(x.shape[1], y.shape[1])
    a, b = x[:n, :m], y[:n, :m]
    assert (parity.kl_full(a, b) >= 0).all()
    assert (np.abs(parity.cosine(a, b)) <= 1).all()


def test_kl_of_two_known_distributions() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert parity.kl_full(np.log(p), np.log(q))[0] == pytest.approx(expected)


def test_a_constant_reference_has_no_spread_to_measure_by() -> None:
    x = np.ones((2, 3))
    assert parity.rms_over_std(x, x + 1) == math.inf
    assert parity.sqnr_db(np.zeros((1, 2)), x[:1, :2]) == -parity.SQNR_CAP_DB
    assert parity.cosine(np.zeros((1, 2)), np.zeros((1, 2)))[0] == 1
    assert parity.cosine(np.zeros((1, 2)), x[:1, :2])[0] == 0


def test_a_swap_of_near_ties_is_excepted_and_no_other() -> None:
    reference = _rows(np.array([[1.0, 1.0 + 1e-5, 0.0], [3.0, 1.0, 0.0]], dtype=np.float32))
    swapped = _rows(np.array([[1.0 + 1e-5, 1.0, 0.0], [3.0, 1.0, 0.0]], dtype=np.float32))
    wrong = _rows(np.array([[1.0, 1.0 + 1e-5, 0.0], [1.0, 3.0, 0.0]], dtype=np.float32))
    assert parity.top1_agreement(reference, swapped) == 0.5
    assert parity.top1_agreement_but_ties(reference, swapped, 1e-4) == 1
    assert parity.top1_agreement_but_ties(reference, swapped, 1e-6) == 0.5
    assert parity.top1_agreement_but_ties(reference, wrong, 1e-4) == 0.5


def test_ppl_ratio_and_its_interval() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 20)).astype(np.float32)
    reference, worse = _rows(x), _rows(x + 0.5 * rng.standard_normal(x.shape).astype(np.float32))
    found = parity.ppl_ratio(reference, worse)
    assert found is not None
    direct = math.exp(parity.nll(worse).mean()) / math.exp(parity.nll(reference).mean())
    assert found.ratio == pytest.approx(direct, rel=1e-9)
    assert found.low < found.ratio < found.high
    assert found.tokens == 399


def test_greedy_prefix_counts_shared_tokens() -> None:
    assert parity.greedy_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert parity.greedy_prefix([1, 2], [1, 2, 3]) == 2
    assert parity.greedy_prefix([], [1]) == 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles_lie_within_the_values(values: list[float], percent: float) -> None:
    found = parity.percentile(np.array(values), percent)
    assert min(values) - 1e-6 <= found <= max(values) + 1e-6
