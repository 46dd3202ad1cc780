"""Turn raw samples into medians and ratios; pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

_NS_PER_S = 1e9
_NS_PER_MS = 1e6

# Higher is better where True. Names carry their unit.
HIGHER_IS_BETTER: dict[str, bool] = {
    "prefill_128_tok_per_s": True,
    "prefill_512_tok_per_s": True,
    "decode_short_tok_per_s": True,
    "decode_long_tok_per_s": True,
    "decode_long_over_short": True,
    "load_ms": False,
    "load_and_first_eval_ms": False,
    "rss_over_base_bytes": False,
    "peak_rss_bytes": False,
}

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Compare the subject (numerator) with one peer (denominator) on one metric.

    Attributes:
        of_medians: Median over the subject's rounds / median over the peer's.
        per_round: Subject / peer, each within one round.
        smallest: Least of `per_round`.
        largest: Greatest of `per_round`.
    """

    of_medians: float
    per_round: tuple[float, ...]
    smallest: float
    largest: float


def round_metrics(samples: Mapping[str, Any]) -> Metrics:
    """Reduce one child's samples (`workload.Samples` as JSON) to one value per metric.

    Within a round the median over repetitions or decode steps is taken.
    """
    metrics: Metrics = {}
    for length, times in samples["prefill_ns"].items():
        metrics[f"prefill_{length}_tok_per_s"] = int(length) * _NS_PER_S / median(times)
    short = _NS_PER_S / median(samples["decode_short_ns"])
    long = _NS_PER_S / median(samples["decode_long_ns"])
    metrics["decode_short_tok_per_s"] = short
    metrics["decode_long_tok_per_s"] = long
    metrics["decode_long_over_short"] = long / short
    metrics["load_ms"] = samples["load_ns"] / _NS_PER_MS
    load = samples["load_ns"] + samples["first_eval_ns"]
    metrics["load_and_first_eval_ms"] = load / _NS_PER_MS
    memory = samples["memory_bytes"]
    metrics["rss_over_base_bytes"] = float(memory["end"] - memory["base"])
    metrics["peak_rss_bytes"] = float(memory["peak"])
    return metrics


def medians(rounds: Sequence[Metrics]) -> Metrics:
    """Take the median of every metric over rounds."""
    return {name: median(one[name] for one in rounds) for name in rounds[0]}


def ratio(subject: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Compare two series whose entries pair up by round.

    Raises:
        ValueError: The series differ in length or are empty.
    """
    per_round = tuple(ours / theirs for ours, theirs in zip(subject, peer, strict=True))
    return Ratio(
        of_medians=median(subject) / median(peer),
        per_round=per_round,
        smallest=min(per_round),
        largest=max(per_round),
    )


def speed_score(metrics: Metrics) -> float:
    """Return the geometric mean of all speeds: how a peer's fastest setting is chosen."""
    speeds = [value for name, value in metrics.items() if name.endswith("_tok_per_s")]
    product = 1.0
    for value in speeds:
        product *= value ** (1 / len(speeds))
    return product
