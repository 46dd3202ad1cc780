"""KL divergence from flight-recorder rows, which hold a part of the logits and their logsumexp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilepack.contract.reference import Rows
from mobilepack.metrics.parity import Array, kl_full

_NOISE = 4e-6
"""Probability below which the mass of the unrecorded ids is rounding: float32 spacing of logits
and logsumexp up to 64 in magnitude (half of 2^-18, twice)."""


@dataclass(frozen=True, slots=True, eq=False)
class KlRows:
    """KL(p || q) of each position in nats; every array is [N].

    Attributes:
        lower: Bound that holds whatever was not recorded: the ids recorded on both sides one by
            one, all others as one lump (log sum inequality), or those recorded on one side at the
            least they can add, whichever is more.
        estimate: The recorded ids one by one; those recorded on one side only at the least they
            can add; all others as the sampled ids among them, in proportion.
        residual_mass: Probability p of the ids that were not recorded on both sides.
    """

    lower: Array
    estimate: Array
    residual_mass: Array


def kl_rows(reference: Rows, candidate: Rows, sampled: Sequence[int], vocab_size: int) -> KlRows:
    """Return KL(p || q) of each position; exact when the sampled ids are the whole vocabulary."""
    if len(sampled) == vocab_size:
        exact = kl_full(reference.sampled, candidate.sampled)
        return KlRows(exact, exact, np.zeros_like(exact))
    ids = np.asarray(sampled, dtype=np.int64)
    pairs = [
        (_Known.of(reference, n, ids), _Known.of(candidate, n, ids)) for n in range(len(reference))
    ]
    parts = [_kl(p, q, vocab_size) for p, q in pairs]
    lower, estimate, mass = np.array(parts, dtype=np.float64).reshape(-1, 3).T
    return KlRows(lower, estimate, mass)


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """Recorded probabilities of one position by id; `cap` bounds every other id's."""

    probability: dict[int, float]
    top: frozenset[int]
    cap: float

    @classmethod
    def of(cls, rows: Rows, n: int, ids: npt.NDArray[np.int64]) -> _Known:
        lse = float(rows.logsumexp[n])
        sampled = np.exp(rows.sampled[n].astype(np.float64) - lse)
        top = np.exp(rows.top_logits[n].astype(np.float64) - lse)
        known = dict(zip(ids.tolist(), sampled.tolist(), strict=True))
        known |= zip(rows.top_ids[n].tolist(), top.tolist(), strict=True)
        return cls(known, frozenset(rows.top_ids[n].tolist()), float(top[-1]))


def _kl(p: _Known, q: _Known, vocab_size: int) -> tuple[float, float, float]:
    both = sorted(p.probability.keys() & q.probability.keys())
    a = np.array([p.probability[i] for i in both])
    b = np.array([q.probability[i] for i in both])
    terms = _terms(a, b)
    p_rest, q_rest = (max(0.0, 1.0 - float(x.sum())) for x in (a, b))
    lump = float(_terms(np.array([max(p_rest, _NOISE)]), np.array([max(q_rest, _NOISE)]))[0])
    tops = p.top | q.top
    inside = np.array([i in tops for i in both], dtype=bool)
    outside = int((~inside).sum())
    weight = (vocab_size - len(tops)) / outside if outside else 0.0
    unshared = _one_sided(p, q) + _one_sided_q(p, q)
    estimate = terms[inside].sum() + unshared + weight * terms[~inside].sum()
    return float(terms.sum() + max(lump, unshared)), float(estimate), p_rest


def _one_sided(p: _Known, q: _Known) -> float:
    """Return the least that the reference's top ids add which the candidate did not record."""
    a = np.array([v for i, v in p.probability.items() if i in p.top and i not in q.probability])
    return float(_terms(a, np.minimum(a, q.cap)).sum())


def _one_sided_q(p: _Known, q: _Known) -> float:
    """Return the least that the candidate's top ids add which the reference did not record."""
    b = np.array([v for i, v in q.probability.items() if i in q.top and i not in p.probability])
    return float(_terms(np.minimum(b, p.cap), b).sum())


def _terms(a: Array, b: Array) -> Array:
    """Return p log(p/q) - p + q: never negative, sums to the divergence over all ids.

    Unlike p log(p/q) alone it feels an error of the logsumexp only to second order.
    """
    safe_a, safe_b = np.maximum(a, 1e-300), np.maximum(b, 1e-300)
    result: Array = np.maximum(a * np.log(safe_a / safe_b) - a + b, 0.0)
    return result
