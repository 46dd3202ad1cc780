"""From raw logits to the rows of a run result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mobilepack.contract.reference import record
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import Row


def row(
    plan: RunPlan,
    item: str,
    logits: npt.NDArray[np.floating],
    *,
    span: tuple[int, int],
    next_id: int | None,
) -> Row:
    """Reduce the logits of one call to a row.

    Args:
        logits: float [V], of the last token of the call.
        span: First and one past the last position that the call fed.
        next_id: The token that follows, None after the item's last.
    """
    broken = int(logits.size - np.isfinite(logits).sum())
    if broken:
        return Row(
            item=item,
            position=span[1] - 1,
            call_tokens=span[1] - span[0],
            non_finite=broken,
            sampled=(),
            top_ids=(),
            top_logits=(),
            logsumexp=0.0,
            next_logit=None,
        )
    one = record(logits[None], [-1 if next_id is None else next_id], plan.sample_ids, plan.top_k)
    return Row(
        item=item,
        position=span[1] - 1,
        call_tokens=span[1] - span[0],
        sampled=_short(one.sampled[0]),
        top_ids=tuple(int(i) for i in one.top_ids[0]),
        top_logits=_short(one.top_logits[0]),
        logsumexp=_short(one.logsumexp)[0],
        next_logit=None if next_id is None else _short(one.next_logit)[0],
    )


def _short(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    # 9 significant digits name every float32 (IEEE 754: 1 + ceil(24 log10 2)); more is noise.
    return tuple(float(f"{value:.9g}") for value in values)
