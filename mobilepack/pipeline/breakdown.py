"""Sum up an ETDump's events: by operator, and by the part of the model that comes next.

Pure functions; `profile_child.py` takes the events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

from mobilepack.contract.profile import OperatorTime, PartTime, Phase

Part = Literal["embedding", "attention", "feed-forward", "output head", "other"]

_COUNTER = re.compile(r" #\d+$")
_LINEAR = "Fully Connected"
# Their time is that of what they call, which has events of its own.
_WRAPPERS = {"OPERATOR_CALL", "DELEGATE_CALL", "JF_CALL", "Method::execute", "Method::init"}
_KERNEL = "native_call_"
_ATTENTION, _FEED_FORWARD = {"q", "k", "v", "o"}, {"gate", "up", "down"}


@dataclass(frozen=True, slots=True)
class Event:
    """One operator of one call, with its time in each of the calls that were profiled."""

    name: str
    milliseconds: tuple[float, ...]

    @property
    def operator(self) -> str:
        """The name without counter and prefix."""
        return _COUNTER.sub("", self.name).removeprefix(_KERNEL)

    @property
    def median_ms(self) -> float:
        """Over the calls."""
        return median(self.milliseconds)


def phase_of(
    phase: Literal["prefill", "decode"],
    tokens: int,
    events: Sequence[Event],
    linears: Sequence[str] | None,
) -> Phase:
    """Sum up the events of one kind of call, in the order of their time.

    Args:
        phase: What was called.
        tokens: How many tokens each call took.
        events: As the runtime recorded them.
        linears: Names of the weights of the linear maps in that order; None if they are not known.
    """
    whole = next(event for event in events if event.name == "Method::execute")
    own = [event for event in events if event.operator not in _WRAPPERS]
    spent = sum(event.median_ms for event in own)
    parts, why = _parts(own, linears)
    return Phase(
        phase=phase,
        tokens=tokens,
        runs=len(whole.milliseconds),
        call_ms=whole.median_ms,
        unattributed_ms=max(whole.median_ms - spent, 0.0),
        operators=tuple(_operators(own)),
        parts=parts,
        why_no_parts=why,
    )


def _operators(events: Sequence[Event]) -> Iterator[OperatorTime]:
    grouped: dict[str, list[float]] = {}
    for event in events:
        grouped.setdefault(event.operator, []).append(event.median_ms)
    for name, times in sorted(grouped.items(), key=lambda item: -sum(item[1])):
        yield OperatorTime(operator=name, calls=len(times), milliseconds=sum(times))


def _parts(
    events: Sequence[Event], linears: Sequence[str] | None
) -> tuple[tuple[PartTime, ...], str]:
    """Return the parts' times: each operator belongs to the linear map that comes next."""
    if linears is None:
        return (), "the package's checkpoint was changed when it was built, or its family has none"
    found = sum(event.operator.startswith(_LINEAR) for event in events)
    if found != len(linears):
        return (), f"the call ran {found} linear maps, the graph has {len(linears)}"
    weights = list(linears)
    times: dict[Part, float] = dict.fromkeys(get_args(Part), 0.0)
    waiting = 0.0
    seen = 0
    for event in events:
        if "embedding" in event.operator:
            times["embedding"] += event.median_ms
            continue
        waiting += event.median_ms
        if event.operator.startswith(_LINEAR):
            part = part_of(weights[seen])
            seen += 1
            if part is not None:
                times[part] += waiting
                waiting = 0.0
    last = part_of(weights[-1]) if weights else None
    times[last or "other"] += waiting
    return tuple(PartTime(part=part, milliseconds=ms) for part, ms in times.items() if ms), ""


def part_of(weight: str) -> Part | None:
    """Return the part that a weight belongs to; None for constants that norms multiply by."""
    if weight.startswith(("head.", "embed.")):  # a tied head
        return "output head"
    found = re.match(r"layers\.\d+\.(\w+)\.weight", weight)
    if found is None:
        return None
    if found[1] in _ATTENTION:
        return "attention"
    return "feed-forward" if found[1] in _FEED_FORWARD else "other"
