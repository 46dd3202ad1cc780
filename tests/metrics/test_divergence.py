"""KL from a part of the logits: exact with all of them, bounded and close with some."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.reference import record, sample_ids
from mobilepack.metrics.divergence import kl_rows
from mobilepack.metrics.parity import kl_full


def _pair(vocab: int, noise: float, seed: int, spread: float = 2.0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = (spread * rng.standard_normal((6, vocab))).astype(np.float32)
    return x, (x + noise * rng.standard_normal(x.shape)).astype(np.float32)


def test_with_the_whole_vocabulary_it_is_exact() -> None:
    x, y = _pair(50, 0.3, 0)
    ids = sample_ids(50)
    found = kl_rows(record(x, [-1] * 6, ids), record(y, [-1] * 6, ids), ids, 50)
    np.testing.assert_allclose(found.estimate, kl_full(x, y), rtol=1e-9)
    np.testing.assert_array_equal(found.lower, found.estimate)
    assert found.residual_mass.max() == 0


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_with_a_sample_the_bound_holds_and_the_estimate_is_close(
    noise: float, spread: float
) -> None:
    x, y = _pair(20_000, noise, 1, spread)
    ids = sample_ids(20_000)
    found = kl_rows(record(x, [-1] * 6, ids), record(y, [-1] * 6, ids), ids, 20_000)
    exact = kl_full(x, y)
    assert (found.lower <= exact * (1 + 1e-4) + 1e-5).all()
    np.testing.assert_allclose(found.estimate, exact, rtol=0.35)
    assert found.estimate.mean() == pytest.approx(exact.mean(), rel=0.15)
    assert (found.residual_mass > 0).all()


def test_identical_rows_have_none_but_rounding() -> None:
    x, _ = _pair(20_000, 0, 2)
    ids = sample_ids(20_000)
    rows = record(x, [-1] * 6, ids)
    found = kl_rows(rows, rows, ids, 20_000)
    assert found.estimate.max() == 0
    assert found.lower.max() < 1e-9


@given(st.integers(0, 1000))
def test_a_program_that_prefers_other_tokens_cannot_hide(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (6 * rng.standard_normal((2, 9000))).astype(np.float32)
    y = rng.permuted(x, axis=1)
    ids = sample_ids(9000)
    found = kl_rows(record(x, [-1] * 2, ids), record(y, [-1] * 2, ids), ids, 9000)
    assert found.estimate.min() > 1.0
    assert found.lower.min() > 1.0
