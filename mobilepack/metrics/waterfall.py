"""The waterfall: every level of the ladder over the same positions, each held against two others.

A level is held against the one before it, which says what this very step lost, and against eager
fp32, which says what is lost altogether. The first has the tolerance of the measured perturbation
floor (`tolerance.py`), the second what the target file allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilepack.contract.parity import Level, Loss, Measured, Rung, Share, Status
from mobilepack.contract.reference import Rows, Variant
from mobilepack.contract.run_result import RunResult
from mobilepack.metrics import compare
from mobilepack.metrics.checks import Checks
from mobilepack.metrics.ladder import EAGER, Judge, rows_of
from mobilepack.metrics.parity import greedy_prefix
from mobilepack.metrics.tolerance import Limit, Limits, fp32_limits

SHOWN = (
    "sqnr_db",
    "cosine_min",
    "rms_over_std",
    "kl_mean",
    "kl_p99",
    "kl_max",
    "top1_agreement",
    "top1_agreement_but_ties",
    "ppl_ratio",
    "ppl_ratio_low",
    "ppl_ratio_high",
)


@dataclass(frozen=True, slots=True)
class Stood:
    """A level below eager PyTorch: what it brought back, or why it did not run.

    Attributes:
        equals: The eager variant that it must equal.
        task: Right answers of the questions it was asked.
    """

    rung: Rung
    where: str
    runtime: str
    result: RunResult | None = None
    equals: Variant = "quantised"
    task: Share | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    rung: Rung
    variant: Variant
    rows: Rows


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Makes the levels of one package.

    Attributes:
        judge: Knows the reference and the limits.
        budget: Limits of anything against eager fp32, from the target file and the command line.
    """

    judge: Judge
    checks: Checks
    budget: Limits

    def levels(self, stood: Sequence[Stood]) -> tuple[Level, ...]:
        """Return all levels, the eager ones first."""
        steps = self._eager()
        found = [self._top(steps[0])] if steps else []
        found += [self._level(Stood(s.rung, "", "PyTorch"), s, steps[:1]) for s in steps[1:]]
        for one in stood:
            step, reason = self._step(one)
            if step is None:
                found.append(_without_rows(one, reason))
                continue
            found.append(self._level(one, step, self._others(steps, one, step)))
            if one.rung in ("exported", "program on host"):
                steps.append(step)
        return tuple(found)

    def _eager(self) -> list[_Step]:
        rows, index = self.judge.reference.rows, self._index()
        variants: tuple[Variant, ...] = ("fp32", "quantised")
        return [_Step(EAGER[v], v, rows[v].take(index)) for v in variants if v in rows]

    def _index(self) -> list[int]:
        """Return the reference's row after every call of every check."""
        index = []
        for check in self.checks.teachers:
            ends = np.cumsum(check.item.calls) - 1
            index += (self.judge.reference.offset(check.sequence) + ends).tolist()
        return index

    def _step(self, one: Stood) -> tuple[_Step | None, str]:
        if one.result is None:
            return None, one.reason
        found, problem = rows_of(self.checks.teachers, one.result.rows)
        if problem:
            return None, problem
        return _Step(one.rung, one.equals, compare.as_arrays(found)), ""

    @staticmethod
    def _others(steps: Sequence[_Step], one: Stood, step: _Step) -> list[_Step]:
        """Return the level before, of the same kind, and eager fp32."""
        before = next((s for s in reversed(steps) if s.variant == step.variant), None)
        top = next((s for s in steps if s.rung == "eager fp32"), None)
        if top is None or before is top:
            return [s for s in (before or top,) if s is not None]
        return [before, top] if before is not None else [top]

    @staticmethod
    def _top(step: _Step) -> Level:
        return Level(rung=step.rung, runtime="PyTorch", status="reported", compared=len(step.rows))

    def _level(self, one: Stood, step: _Step, others: Sequence[_Step]) -> Level:
        losses = tuple(self._loss(step, other) for other in others)
        broken = [(loss, m) for loss in losses for m in loss.metrics if not m.ok]
        judged = any(m.limit is not None for loss in losses for m in loss.metrics)
        status: Status = "failed" if broken else "passed" if judged else "reported"
        return Level(
            rung=one.rung,
            where=one.where,
            runtime=one.runtime,
            status=status,
            compared=len(step.rows),
            losses=losses,
            greedy=self._greedy(one),
            task=one.task,
            reason="; ".join(f"against {loss.against}: {_text(m)}" for loss, m in broken),
        )

    def _loss(self, step: _Step, other: _Step) -> Loss:
        metrics = compare.compare(
            other.rows,
            step.rows,
            self.judge.reference.index,
            self._limits(step, other),
            self.judge.tie_margin,
        )
        kept = tuple(m for m in metrics if m.name in SHOWN)
        return Loss(against=other.rung, metrics=kept)

    def _limits(self, step: _Step, other: _Step) -> Limits:
        limits: Limits = {}
        if step.variant == other.variant:
            exact = step.variant == "fp32" and self.judge.top == "quantised"
            limits |= fp32_limits() if exact else self.judge.limits(len(step.rows))
        if other.rung == "eager fp32":
            limits |= {name: limit for name, limit in self.budget.items() if name not in limits}
        return limits

    def _greedy(self, one: Stood) -> Share | None:
        said = {g.item: g.token_ids for g in one.result.generated} if one.result else {}
        pairs = [
            (ref.token_ids[: max(1, len(said[item.name]))], said[item.name])
            for item, ref in self.checks.greedy
            if item.name in said and ref.variant == one.equals
        ]
        if not pairs:
            return None
        shared = sum(greedy_prefix(expected, found) for expected, found in pairs)
        return Share(count=shared, of=sum(len(expected) for expected, _ in pairs))


def _without_rows(one: Stood, reason: str) -> Level:
    return Level(
        rung=one.rung,
        where=one.where,
        runtime=one.runtime,
        status="not run" if one.result is None else "failed",
        reason=reason,
    )


def _text(metric: Measured) -> str:
    sign = "<=" if metric.better == "lower" else ">="
    return f"{metric.name} {metric.value:.3g} is not {sign} {metric.limit:.3g} ({metric.reason})"


def budget_of(
    max_ppl_ratio: float | None,
    max_kl_mean: float | None,
    min_top1_agreement: float | None,
    min_sqnr_db: float | None,
    target: str,
) -> Limits:
    """Return what a target file lets a package lose against eager fp32."""
    why = f"targets: {target} allows so much"
    named = {
        # the lower end of the interval: broken for certain
        "ppl_ratio_low": max_ppl_ratio,
        "kl_mean": max_kl_mean,
        "top1_agreement": min_top1_agreement,
        "sqnr_db": min_sqnr_db,
    }
    return {name: Limit(value, why) for name, value in named.items() if value is not None}
