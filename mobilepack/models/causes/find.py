"""Try every known cause on the numbers; the one that explains them is named, or none is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.causes.attention import attention
from mobilepack.models.causes.evidence import Cause, Evidence, Hypotheses
from mobilepack.models.causes.linear import linear
from mobilepack.models.causes.pointwise import activation, combination, norm
from mobilepack.models.causes.rope import rope

ENOUGH = 0.8
"""Least share of the squared error that a cause must explain to be named. A wrong one explains
nothing (its own error adds), a right one all but rounding; 0.8 leaves a fifth to int8 steps."""

_HALF_LARGEST = 65504.0

_OURS, _ATEN = torch.ops.mobilepack, torch.ops.aten
_TRIALS: dict[object, Callable[[Evidence], Hypotheses]] = {
    _ATEN.linear.default: linear,
    _ATEN.gelu.default: activation,
    _ATEN.silu.default: activation,
    _ATEN.relu.default: activation,
    _ATEN.add.Tensor: combination,
    _ATEN.mul.Tensor: combination,
    _OURS.rms_norm.default: norm,
    _OURS.layer_norm.default: norm,
    _OURS.rope.default: rope,
    _OURS.attention.default: attention,
}


def find_cause(evidence: Evidence) -> Cause | None:
    """Return the cause that explains most of the error, None if none explains enough."""
    if (saturated := _saturated(evidence)) is not None:
        return saturated
    trial = _TRIALS.get(evidence.node.target)
    error = (evidence.found - evidence.expected).square().sum()
    if trial is None or not bool(error > 0):
        return None
    best: Cause | None = None
    for one in trial(evidence):
        left = (evidence.found - evidence.held(one.predicted)).square().sum()
        explained = 1 - float(left / error)
        if explained >= ENOUGH and (best is None or explained > best.explained):
            cause = one.cause
            best = Cause(cause.name, cause.text, cause.remedy, explained)
    return best


def _saturated(evidence: Evidence) -> Cause | None:
    """Say so if the program's results left the range of half precision."""
    found, expected = evidence.found, evidence.expected
    broken = ~torch.isfinite(found) | (found.abs() >= _HALF_LARGEST)
    if not bool(broken.any()) or not bool(torch.isfinite(expected).all()):
        return None
    largest = float(expected.abs().max())
    count = int(broken.sum())
    text = f"{count} of {found.numel()} numbers are beyond half precision's largest, 65504"
    text += f"; in float32 the largest is {largest:.4g}"
    remedy = (
        "keep this value in float32 (--kv-cache fp32 for keys and values), or scale the weights"
    )
    remedy += " before it down and those after it up"
    return Cause("fp16-saturation", text, remedy, 1.0)
