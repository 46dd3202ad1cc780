"""What each comparison of the ladder may differ by, and why.

Sources are measurements of this project with executorch 1.5.1 on random weights in published
shapes (docs/decisions, facts/xnnpack.md); every limit carries its reason into parity.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mobilepack.contract.parity import PerturbationFloor
from mobilepack.contract.reference import Reference
from mobilepack.metrics.divergence import kl_rows
from mobilepack.metrics.parity import cosine, percentile, rms_over_std

FP32_RMS_OVER_STD = 1e-5
"""Measured 2.3e-6 over 30 layers (fp32 program against eager): sums in another order; 4x room."""
FP32_KL_MAX = 1e-5
"""Measured 5e-7; a wrong kernel, mask or position gives 1e-2 and more."""
TIE_MARGIN_OVER_STD = 20 * FP32_RMS_OVER_STD
"""Two logits closer than this can swap by rounding alone: each may move by ten times the RMS
tolerance (the largest of some 10^5 values lies within six times their RMS)."""
FLOOR_FACTOR = 2.0
"""8da4w may differ from its eager model by twice what that model moves under an input
perturbation: program and eager are two such perturbations of the same ideal."""
QUANTISED_COSINE_MIN = 0.995
"""Measured 0.9988 on random weights, the most chaotic case; a wrong scale or layout falls below."""
QUANTISED_KL_MAX = 1e-2
"""Measured 1.7e-3 on random weights; a wrong scale or layout gives 0.1 and more."""

HALF_COSINE_MIN = 0.9999
HALF_TOP1_MIN = 0.99
"""fp16 on the HTP against eager fp32, trained weights (the embedded model)."""
HALF_TIE_MARGIN = 0.03
"""Standard deviations; the RMS of the error is 2.3e-3 of one (52.9 dB, the embedded model), and two
logits may each move by six times that."""
STATIC_COSINE_MIN = 0.999
"""16a4w and 16a8w on the HTP against their fake-quantised model, trained weights."""

RMS_OVER_STD_CAP = 0.12
"""No floor raises the limit above this: random weights, the most chaotic case, measured 2.8e-2 to
4.2e-2 (SmolLM2-135M's shape). A reference whose own floor is larger proves nothing."""
QUANTISED_COSINE_CAP = 0.98
QUANTISED_KL_CAP = 5e-2


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest (or, for agreement and cosine, smallest) value that passes."""

    value: float
    reason: str


Limits = dict[str, Limit]


def measured_floor(reference: Reference) -> PerturbationFloor | None:
    """Return how far the quantised eager model moved under a perturbation, if recorded."""
    clean, moved = reference.rows.get("quantised"), reference.rows.get("floor")
    if clean is None or moved is None:
        return None
    index = reference.index
    kl = kl_rows(clean, moved, index.sample_ids, index.vocab_size)
    return PerturbationFloor(
        rms_over_std=rms_over_std(clean.sampled, moved.sampled),
        cosine_min=float(cosine(clean.sampled, moved.sampled).min()),
        kl_max=float(kl.estimate.max()),
        position_rms_over_std=percentile(
            np.array(
                [
                    rms_over_std(clean.sampled[i : i + 1], moved.sampled[i : i + 1])
                    for i in range(len(clean.sampled))
                ]
            ),
            95,
        ),
    )


def fp32_limits() -> Limits:
    """Return the limits of an fp32 program against eager fp32."""
    return {
        "rms_over_std": Limit(FP32_RMS_OVER_STD, "fp32 sums in another order; measured 2.3e-6"),
        "kl_max": Limit(FP32_KL_MAX, "measured 5e-7"),
        "top1_agreement_but_ties": Limit(
            1.0, f"ties excepted: logits within {TIE_MARGIN_OVER_STD:g} standard deviations"
        ),
    }


def limits_of(recipe: str, floor: PerturbationFloor | None, positions: int | None = None) -> Limits:
    """Return the limits of a program of a recipe against the eager model that it must equal.

    Args:
        positions: How many are compared together, None for all: a few have more noise than all.
    """
    if recipe == "fp32":
        return fp32_limits()
    if recipe == "fp16":
        return half_limits()
    if recipe in ("8w", "4w", "4p"):
        return weight_only_limits()
    if recipe.startswith("16a"):
        return static_limits(floor)
    return quantised_limits(floor, positions)


def half_limits() -> Limits:
    """Return the limits of a program in half precision against eager fp32."""
    return {
        "cosine_min": Limit(HALF_COSINE_MIN, "11-bit significands; measured 0.99992 and above"),
        "top1_agreement_but_ties": Limit(
            HALF_TOP1_MIN, f"ties excepted: logits within {HALF_TIE_MARGIN:g} standard deviations"
        ),
    }


def noise_of(floor: PerturbationFloor, positions: int | None) -> float:
    """Return the noise (rms over std) of a mean over some positions.

    The mean square of n positions lies above that of all by the n-th part of what a single position
    can lie above it; 19 of 20 single positions are within theirs.
    """
    every, one = floor.rms_over_std, floor.position_rms_over_std
    if positions is None or one is None or one <= every:
        return every
    return math.sqrt(every**2 + (one**2 - every**2) / positions)


def weight_only_limits() -> Limits:
    """Return the limits of a program with compressed weights and half-precision activations.

    It is held against eager fp32 with the very numbers that the package's weights stand for, so
    what is left is the rounding of half precision.
    """
    return {
        "cosine_min": Limit(STATIC_COSINE_MIN, "half precision with the same weights"),
        "top1_agreement_but_ties": Limit(
            HALF_TOP1_MIN, f"ties excepted: logits within {HALF_TIE_MARGIN:g} standard deviations"
        ),
    }


def static_limits(floor: PerturbationFloor | None) -> Limits:
    """Return the limits of a program with 16-bit activations against its fake-quantised model.

    They are cosine's: 16-bit roundings fall otherwise where sums have another order. A model whose
    own noise, with its roundings made at random, is larger is judged by its noise, within a cap.
    """
    least, why = STATIC_COSINE_MIN, "measured 0.9993 and above on trained weights"
    if floor is not None and 1 - FLOOR_FACTOR * (1 - floor.cosine_min) < least:
        least = max(QUANTISED_COSINE_CAP, 1 - FLOOR_FACTOR * (1 - floor.cosine_min))
        why = f"{FLOOR_FACTOR:g}x the measured perturbation floor"
    return {"cosine_min": Limit(least, why)}


def quantised_limits(floor: PerturbationFloor | None, positions: int | None = None) -> Limits:
    """Return the limits of a quantised program against eager with the same quantised weights.

    A model whose own noise is larger than the fixed limits is judged by its noise, within caps;
    without a recorded floor only the fixed limits hold. The fewer positions are compared, the
    nearer the noise is to what a single one may move (`noise_of`).
    """
    cosine_min, kl_max = QUANTISED_COSINE_MIN, QUANTISED_KL_MAX
    limits: Limits = {}
    if floor is not None:
        noise = noise_of(floor, positions)
        rms = min(RMS_OVER_STD_CAP, FLOOR_FACTOR * noise)
        why = f"{FLOOR_FACTOR:g}x the measured perturbation floor {noise:.2e}"
        if positions is not None:
            why += f" of {positions} positions"
        limits["rms_over_std"] = Limit(
            max(rms, FP32_RMS_OVER_STD), f"{why}, at most {RMS_OVER_STD_CAP:g}"
        )
        noisy_cosine = 1 - FLOOR_FACTOR * (1 - floor.cosine_min)
        cosine_min = max(QUANTISED_COSINE_CAP, min(cosine_min, noisy_cosine))
        kl_max = min(QUANTISED_KL_CAP, max(kl_max, FLOOR_FACTOR * floor.kl_max))
    limits["cosine_min"] = Limit(cosine_min, "measured 0.9988 on random weights, or the floor")
    limits["kl_max"] = Limit(kl_max, "measured 1.7e-3 on random weights, or the floor")
    return limits
