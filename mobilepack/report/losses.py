"""The cells of the waterfall's table: value, tolerance, and whether it is broken."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.contract.parity import Loss, Measured

COLUMNS: tuple[tuple[str, str], ...] = (
    ("sqnr_db", "SQNR dB"),
    ("cosine_min", "cosine"),
    ("rms_over_std", "rms/std"),
    ("kl_mean", "Mean KLD"),
    ("kl_p99", "99.0% KLD"),
    ("kl_max", "Maximum KLD"),
    ("top1_agreement", "Same top p"),
    ("ppl_ratio", "PPL(Q)/PPL(base) [95 %]"),
)
"""Metrics in order, under the names that llama.cpp's `--kl-divergence` prints."""

_BESIDE = {
    "ppl_ratio": ("ppl_ratio_low", "low "),
    "top1_agreement": ("top1_agreement_but_ties", "but ties "),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of the table; texts, empty where there is none."""

    value: str = ""
    limit: str = ""
    broken: bool = False


def cells(loss: Loss) -> tuple[Cell, ...]:
    """Return one cell per column."""
    found = {metric.name: metric for metric in loss.metrics}
    return tuple(_cell(name, found) for name, _ in COLUMNS)


def _cell(name: str, found: dict[str, Measured]) -> Cell:
    if name not in found:
        return Cell()
    other, note = _BESIDE.get(name, ("", ""))
    judges = [(found[name], ""), *([(found[other], note)] if other in found else [])]
    limits = [before + _limit(m) for m, before in judges if m.limit is not None]
    return Cell(_value(name, found), ", ".join(limits), not all(m.ok for m, _ in judges))


def _value(name: str, found: dict[str, Measured]) -> str:
    value = found[name].value
    if name == "top1_agreement":
        return f"{100 * value:.1f} %"
    low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
    text = f"{value:.4g}"
    if low is None or high is None:
        return text
    return f"{text} [{low.value:.4g}, {high.value:.4g}]"


def _limit(metric: Measured) -> str:
    sign = "≤" if metric.better == "lower" else "≥"
    if metric.name.startswith("top1"):
        return f"{sign} {100 * (metric.limit or 0.0):.4g} %"
    return f"{sign} {metric.limit:.4g}"
