"""Where the time of a call goes: by operator, and by part of the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract


class OperatorTime(Contract):
    """All calls of one operator in one call of the program.

    Attributes:
        operator: XNNPACK's or the kernel's name without the counter.
        milliseconds: Their sum; XNNPACK's profile counts in microseconds.
    """

    operator: str
    calls: int
    milliseconds: float


class PartTime(Contract):
    """What one part of the model takes in one call of the program."""

    part: Literal["embedding", "attention", "feed-forward", "output head", "other"]
    milliseconds: float


class Phase(Contract):
    """One kind of call.

    Attributes:
        phase: `prefill` of `tokens` at once, or `decode` of one.
        runs: Calls that were profiled; times are medians over them.
        call_ms: The whole call, with profiling on.
        unattributed_ms: Of the call, what no operator's time covers: delegates' entry, dispatch,
            and what microseconds round away.
        parts: Empty where the operators could not be matched with the model's weights.
        why_no_parts: Why, else empty.
    """

    phase: Literal["prefill", "decode"]
    tokens: int
    runs: int
    call_ms: float
    unattributed_ms: float
    operators: tuple[OperatorTime, ...]
    parts: tuple[PartTime, ...]
    why_no_parts: str = ""


class Profile(Contract):
    """An ETDump of a package's program, summed up."""

    schema_: Literal["mobilepack/profile/1"] = Field("mobilepack/profile/1", alias="schema")
    plan_id: str
    threads: int
    phases: tuple[Phase, ...]
