"""Samples of time in summary: centre, spread, interval, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["steady", "noisy", "drifting", "too few"]
Trust = Literal["VALID", "NOISY", "THROTTLED", "NOT REPRESENTATIVE"]

MIN_SAMPLES = 5
"""Fewer repetitions than this get no verdict (facts/peers.md: at least 5 repeats)."""
MAX_SPREAD = 0.10
"""Largest steady (p90 - p10) / median. Runs of an idle phone or desktop stay within a few per
cent; 10 % is where two systems 1.25x apart can no longer be told apart by 5 samples."""
MAX_DRIFT = 0.05
"""Largest steady change of the median from the first half of the samples to the second."""
HOT = ("moderate", "severe", "critical", "emergency", "shutdown")
"""Android's thermal statuses at which performance is reduced (PowerManager THERMAL_STATUS_*)."""
WARMING_C = 3.0
"""A rise of the hottest sensor that explains why samples became slower."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of samples in their own unit.

    Attributes:
        sd: Sample standard deviation (n - 1), 0 for one sample.
        p90: Linear between the two nearest samples.
        low: Lower end of the 95 % bootstrap interval of the median; `high` the upper.
        spread: (p90 - p10) / median.
        drift: Median of the second half over median of the first, minus 1; 0 below 4 samples.
        reason: The verdict in words and numbers.
    """

    samples: int
    mean: float
    sd: float
    median: float
    p90: float
    low: float
    high: float
    minimum: float
    maximum: float
    spread: float
    drift: float
    verdict: Verdict
    reason: str


def summarise(values: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> Summary:
    """Return the statistics of samples in the order they were taken.

    Args:
        values: At least one, all finite and positive.
        seed: Of the bootstrap's generator; the same samples give the same interval.
        resamples: Of the bootstrap (percentile method, Efron and Tibshirani 1993, ch. 13).

    Raises:
        ValueError: There are no samples.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        raise ValueError("no samples")
    low, high = _interval(x, seed, resamples)
    p10, median, p90 = (float(v) for v in np.percentile(x, (10, 50, 90)))
    spread = (p90 - p10) / median if median else 0.0
    drift = _drift(x)
    verdict, reason = _verdict(x.size, spread, drift)
    return Summary(
        samples=int(x.size),
        mean=float(x.mean()),
        sd=float(x.std(ddof=1)) if x.size > 1 else 0.0,
        median=median,
        p90=p90,
        low=low,
        high=high,
        minimum=float(x.min()),
        maximum=float(x.max()),
        spread=spread,
        drift=drift,
        verdict=verdict,
        reason=reason,
    )


def trust(
    summaries: Sequence[Summary], *, representative: bool, conditions: Mapping[str, str]
) -> tuple[Trust, str]:
    """Return whether times of a test can be believed, and why.

    The order is that of what a reader has to know first: times of an emulator or a server are not a
    phone's however steady they are; a phone that got slower because it got hot has a cause; the
    rest is noise.

    Args:
        summaries: Of the test's times (not speeds), each in the order taken.
        representative: Whether the device is one that users have.
        conditions: `thermal_status_after`, `temperatures_c_before` and `_after` where known.
    """
    if not representative:
        return "NOT REPRESENTATIVE", "not a user's device: " + "; ".join(_reasons(summaries))
    status = conditions.get("thermal_status_after", "")
    if status in HOT:
        return "THROTTLED", f"the phone's thermal status was {status} at the end"
    slower = [one for one in summaries if one.drift > MAX_DRIFT]
    before, after = (
        hottest(conditions.get(f"temperatures_c_{w}", "")) for w in ("before", "after")
    )
    if slower and before is not None and after is not None and after - before >= WARMING_C:
        drift = max(one.drift for one in slower)
        return "THROTTLED", f"{drift:+.1%} slower while it went from {before:g} to {after:g} °C"
    unsteady = [one for one in summaries if one.verdict != "steady"]
    if unsteady:
        return "NOISY", "; ".join(_reasons(unsteady))
    return "VALID", "; ".join(_reasons(summaries))


def hottest(temperatures: str) -> float | None:
    """Return the largest of `cpu AP 25.6; skin LRB 24.7`, None if there is none."""
    found = []
    for part in temperatures.split(";"):
        try:
            found.append(float(part.split()[-1]))
        except (IndexError, ValueError):
            continue
    return max(found, default=None)


def _reasons(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(f"{one.verdict}, {one.reason}" for one in summaries))


def tok_per_s(tokens: int, nanoseconds: float) -> float:
    """Return tokens per second; the clock's smallest step stands in for no time at all."""
    return tokens * 1e9 / max(nanoseconds, 1.0)


def _interval(x: npt.NDArray[np.float64], seed: int, resamples: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(x, size=(resamples, x.size)), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _drift(x: npt.NDArray[np.float64]) -> float:
    half = x.size // 2
    if half < 2:
        return 0.0
    first = float(np.median(x[:half]))
    return float(np.median(x[-half:])) / first - 1.0 if first else 0.0


def _verdict(samples: int, spread: float, drift: float) -> tuple[Verdict, str]:
    numbers = f"spread {spread:.1%}, drift {drift:+.1%} over {samples} samples"
    if samples < MIN_SAMPLES:
        return "too few", f"{samples} of at least {MIN_SAMPLES} samples"
    if abs(drift) > MAX_DRIFT:
        return "drifting", f"{numbers}; steady drifts at most {MAX_DRIFT:.0%}"
    if spread > MAX_SPREAD:
        return "noisy", f"{numbers}; steady spreads at most {MAX_SPREAD:.0%}"
    return "steady", numbers
