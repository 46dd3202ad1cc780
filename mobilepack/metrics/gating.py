"""Holding changes against a gate's rules."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from mobilepack.contract.gate import Gate, Judged, Rule, percent
from mobilepack.metrics.changes import Change


def judge(gate: Gate, changes: Sequence[Change]) -> tuple[Judged, ...]:
    """Return every rule's outcome for every figure that it names.

    A measured figure that cannot be trusted, or whose interval holds the limit, is not judged: a
    gate that fails by chance is switched off soon. Exact figures (sizes, instructions, parity) are
    always judged.
    """
    return tuple(found for rule in gate.rule for found in _of_rule(rule, changes))


def _of_rule(rule: Rule, changes: Sequence[Change]) -> Iterator[Judged]:
    named = [change for change in changes if fnmatch.fnmatchcase(change.name, rule.metric)]
    present = [change for change in named if change.after is not None]
    if not present:
        outcome = "failed" if rule.required else "not judged"
        yield Judged(metric=rule.metric, outcome=outcome, why="no figure has this name")
    for change in present:
        yield _judged(rule, change)


def _judged(rule: Rule, change: Change) -> Judged:
    if change.distrust:
        return Judged(metric=change.name, outcome="not judged", why=change.distrust)
    broken = [*_absolute(rule, change), *_relative(rule, change)]
    sure = [why for certain, why in broken if certain]
    if sure:
        return Judged(metric=change.name, outcome="failed", why="; ".join(sure))
    if broken:
        why = "; ".join(why for _, why in broken)
        return Judged(metric=change.name, outcome="not judged", why=f"too close to say: {why}")
    return Judged(metric=change.name, outcome="passed", why=_found(change))


def _absolute(rule: Rule, change: Change) -> Iterator[tuple[bool, str]]:
    value = change.after
    if value is None:
        return
    if rule.max is not None and value > rule.max:
        yield True, f"{value:.6g} is above {rule.max:g}"
    if rule.min is not None and value < rule.min:
        yield True, f"{value:.6g} is below {rule.min:g}"


def _relative(rule: Rule, change: Change) -> Iterator[tuple[bool, str]]:
    if rule.max_increase is None and rule.max_decrease is None:
        return
    ratio, low, high = change.ratio, change.low, change.high
    if ratio is None or low is None or high is None:
        if change.before is None or change.before != change.after:
            yield False, "there is nothing to compare with"
        return
    if rule.max_increase is not None and ratio > 1 + percent(rule.max_increase):
        certain = low > 1 + percent(rule.max_increase)
        yield certain, f"{_found(change)}; at most +{rule.max_increase}"
    if rule.max_decrease is not None and ratio < 1 - percent(rule.max_decrease):
        certain = high < 1 - percent(rule.max_decrease)
        yield certain, f"{_found(change)}; at most -{rule.max_decrease}"


def _found(change: Change) -> str:
    if change.ratio is None or change.low is None or change.high is None:
        return f"{change.after:.6g}"
    text = f"{change.ratio - 1:+.2%}"
    if change.low != change.high:
        text += f" [{change.low - 1:+.2%}, {change.high - 1:+.2%}]"
    return text
