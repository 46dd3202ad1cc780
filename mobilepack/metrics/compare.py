"""All metrics of one comparison, held against its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mobilepack.contract.parity import Measured, ParityRow, Rung, Status
from mobilepack.contract.reference import ReferenceIndex, Rows
from mobilepack.contract.run_result import Row
from mobilepack.metrics import parity
from mobilepack.metrics.divergence import kl_rows
from mobilepack.metrics.tolerance import TIE_MARGIN_OVER_STD, Limit, Limits

_HIGHER = {
    "cosine_min",
    "sqnr_db",
    "top1_agreement",
    "top1_agreement_but_ties",
    "greedy_prefix_tokens",
    "mean_delta_p_percent",
}
_LARGEST = 1e300  # stands for infinity, which JSON cannot hold


def measured(name: str, value: float, limits: Limits) -> Measured:
    """Return a metric with its limit, if it has one."""
    better: Literal["lower", "higher"] = "higher" if name in _HIGHER else "lower"
    limit = limits.get(name, Limit(0.0, ""))
    finite = float(np.nan_to_num(value, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST))
    return Measured(
        name=name,
        value=finite,
        better=better,
        limit=limit.value if name in limits else None,
        reason=limit.reason,
    )


def compare(
    reference: Rows,
    candidate: Rows,
    index: ReferenceIndex,
    limits: Limits,
    tie_margin: float = TIE_MARGIN_OVER_STD,
) -> tuple[Measured, ...]:
    """Return every metric of two sets of rows of the same positions.

    `tie_margin`: logits that are closer, in standard deviations of all, may swap.
    """
    r, c = reference.sampled, candidate.sampled
    kl = kl_rows(reference, candidate, index.sample_ids, index.vocab_size)
    cosines = parity.cosine(r, c)
    margin = tie_margin * float(r.astype(np.float64).std())
    values = {
        "rms_over_std": parity.rms_over_std(r, c),
        "cosine_min": float(cosines.min()),
        "sqnr_db": parity.sqnr_db(r, c),
        "max_abs": parity.max_abs(r, c),
        "kl_mean": float(kl.estimate.mean()),
        "kl_p99": parity.percentile(kl.estimate, 99),
        "kl_max": float(kl.estimate.max()),
        "kl_lower_bound_max": float(kl.lower.max()),
        "kl_unrecorded_mass_max": float(kl.residual_mass.max()),
        "top1_agreement": parity.top1_agreement(reference, candidate),
        "top1_agreement_but_ties": parity.top1_agreement_but_ties(reference, candidate, margin),
    }
    values |= _of_next_tokens(reference, candidate)
    return tuple(measured(name, value, limits) for name, value in values.items())


def _of_next_tokens(reference: Rows, candidate: Rows) -> dict[str, float]:
    ratio = parity.ppl_ratio(reference, candidate)
    if ratio is None:
        return {}
    return {
        "mean_delta_p_percent": float(parity.delta_p(reference, candidate).mean()),
        "ppl_ratio": ratio.ratio,
        "ppl_ratio_low": ratio.low,
        "ppl_ratio_high": ratio.high,
    }


def judged_row(
    rung: Rung, against: Rung, check: str, compared: int, metrics: tuple[Measured, ...]
) -> ParityRow:
    """Return a row whose status follows from its metrics."""
    broken = [m for m in metrics if not m.ok]
    status: Status = "reported"
    if any(m.limit is not None for m in metrics):
        status = "failed" if broken else "passed"
    sign = {"lower": "<=", "higher": ">="}
    reason = "; ".join(
        f"{m.name} {m.value:.3g} is not {sign[m.better]} {m.limit:.3g} ({m.reason})"
        for m in broken
        if m.limit is not None
    )
    return ParityRow(
        rung=rung,
        against=against,
        check=check,
        compared=compared,
        metrics=metrics,
        status=status,
        reason=reason,
    )


def failed_row(rung: Rung, against: Rung, check: str, reason: str) -> ParityRow:
    """Return a row that failed before anything could be compared."""
    return ParityRow(
        rung=rung,
        against=against,
        check=check,
        compared=0,
        metrics=(),
        status="failed",
        reason=reason,
    )


def not_run(rung: Rung, check: str, reason: str) -> ParityRow:
    """Return a row that says what was not checked and why."""
    return ParityRow(
        rung=rung,
        against=None,
        check=check,
        compared=0,
        metrics=(),
        status="not run",
        reason=reason,
    )


def as_arrays(rows: Sequence[Row]) -> Rows:
    """Return finite rows of a run result as arrays, in the order given."""
    following = [np.nan if r.next_logit is None else r.next_logit for r in rows]
    return Rows(
        sampled=np.array([r.sampled for r in rows], dtype=np.float32),
        top_ids=np.array([r.top_ids for r in rows], dtype=np.int64),
        top_logits=np.array([r.top_logits for r in rows], dtype=np.float32),
        logsumexp=np.array([r.logsumexp for r in rows], dtype=np.float32),
        next_logit=np.array(following, dtype=np.float32),
    )
