"""How far a candidate's logits are from a reference's; the reference always comes first.

Arrays are `[N, M]`: N positions, M vocabulary ids (or `[N]` where one number per position is
meant). Everything is computed in float64. Probabilities are of the whole vocabulary: p of the
reference, q of the candidate; logarithms are natural, KL divergence is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilepack.contract.reference import Rows

Array = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating]

SQNR_CAP_DB = 200.0
"""What identical values are given: more than float32's 24 bits of mantissa can show (144 dB)."""


def cosine(reference: AnyArray, candidate: AnyArray) -> Array:
    """Return the cosine of each position's logits, 1 when both are zero; [N]."""
    r, c = _wide(reference), _wide(candidate)
    norms = np.linalg.norm(r, axis=-1) * np.linalg.norm(c, axis=-1)
    same = (np.linalg.norm(r, axis=-1) == 0) & (np.linalg.norm(c, axis=-1) == 0)
    dots = (r * c).sum(axis=-1)
    quotient = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return np.where(same, 1.0, np.clip(quotient, -1.0, 1.0))


def sqnr_db(reference: AnyArray, candidate: AnyArray) -> float:
    """Return signal to quantisation noise: 10 log10(sum r^2 / sum (r - c)^2), at most 200 dB."""
    r, c = _wide(reference), _wide(candidate)
    noise = float(((r - c) ** 2).sum())
    signal = float((r**2).sum())
    if noise == 0:
        return SQNR_CAP_DB
    if signal == 0:
        return -SQNR_CAP_DB
    return float(np.clip(10 * math.log10(signal / noise), -SQNR_CAP_DB, SQNR_CAP_DB))


def max_abs(reference: AnyArray, candidate: AnyArray) -> float:
    """Return the largest absolute difference of two logits."""
    return float(np.abs(_wide(reference) - _wide(candidate)).max())


def rms_over_std(reference: AnyArray, candidate: AnyArray) -> float:
    """Return the root mean square difference over the reference's standard deviation.

    The deviation is over all values of all positions. A constant reference has none: then the
    result is 0 for identical values and infinite otherwise.
    """
    r, c = _wide(reference), _wide(candidate)
    rms = math.sqrt(float(((r - c) ** 2).mean()))
    std = float(r.std())
    if std == 0:
        return 0.0 if rms == 0 else math.inf
    return rms / std


def kl_full(reference: AnyArray, candidate: AnyArray) -> Array:
    """Return KL(p || q) of each position from full logits; [N]."""
    log_p, log_q = log_softmax(reference), log_softmax(candidate)
    result: Array = np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0.0)
    return result


def top1_agreement(reference: Rows, candidate: Rows) -> float:
    """Return the share of positions with the same most likely token (llama.cpp: Same top p)."""
    return float((reference.top_ids[:, 0] == candidate.top_ids[:, 0]).mean())


def top1_agreement_but_ties(reference: Rows, candidate: Rows, margin: float) -> float:
    """Return the share of positions with the same most likely token, near ties excepted.

    A differing token is excepted when the reference's own logit of it is at most `margin` below
    its largest: then rounding alone may order the two either way.
    """
    good = 0
    for ref_ids, logits, best in zip(
        reference.top_ids, reference.top_logits, candidate.top_ids[:, 0], strict=True
    ):
        tied = ref_ids[logits >= logits[0] - margin]
        good += int(best in tied)
    return good / len(reference)


def delta_p(reference: Rows, candidate: Rows) -> Array:
    """Return q - p of the token that follows, where there is one, in percentage points (Δp)."""
    r, c = _next_log_probability(reference, candidate)
    return 100.0 * (np.exp(c) - np.exp(r))


def nll(rows: Rows) -> Array:
    """Return the negative log-likelihood of the token that follows, where there is one."""
    following = np.isfinite(rows.next_logit)
    values: Array = (_wide(rows.logsumexp) - _wide(rows.next_logit))[following]
    return values


@dataclass(frozen=True, slots=True)
class PplRatio:
    """PPL(candidate) / PPL(reference) over the same tokens with its 95 % interval."""

    ratio: float
    low: float
    high: float
    tokens: int


def ppl_ratio(reference: Rows, candidate: Rows) -> PplRatio | None:
    """Return the ratio of perplexities, None without a token to predict.

    exp of the mean difference of log-likelihoods; the interval is the normal one of that mean over
    paired differences (1.96 standard errors), as llama.cpp's perplexity tool propagates it.
    """
    r, c = _next_log_probability(reference, candidate)
    if len(r) == 0:
        return None
    difference = r - c
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(len(r)) if len(r) > 1 else 0.0
    low, high = mean - 1.96 * error, mean + 1.96 * error
    return PplRatio(_exp(mean), _exp(low), _exp(high), len(r))


def greedy_prefix(reference: Sequence[int], candidate: Sequence[int]) -> int:
    """Return how many tokens two greedy generations share from the start."""
    for index, (a, b) in enumerate(zip(reference, candidate, strict=False)):
        if a != b:
            return index
    return min(len(reference), len(candidate))


def percentile(values: AnyArray, percent: float) -> float:
    """Return a percentile, linear between the two nearest values (numpy's default)."""
    return float(np.percentile(_wide(values), percent))


def log_softmax(logits: AnyArray) -> Array:
    """Return log-probabilities over the last axis."""
    wide = _wide(logits)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _next_log_probability(reference: Rows, candidate: Rows) -> tuple[Array, Array]:
    both = np.isfinite(reference.next_logit) & np.isfinite(candidate.next_logit)
    r = _wide(reference.next_logit)[both] - _wide(reference.logsumexp)[both]
    c = _wide(candidate.next_logit)[both] - _wide(candidate.logsumexp)[both]
    return r, c


def _exp(value: float) -> float:
    """Return e to the power, at most 1e300 so that JSON can hold it."""
    return math.exp(min(value, 690.0))


def _wide(values: AnyArray) -> Array:
    return np.asarray(values, dtype=np.float64)
