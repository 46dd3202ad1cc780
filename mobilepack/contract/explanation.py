"""explanation.json: where a program first computes something else, and why it probably does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract

Stage = Literal["tokenizer", "quantisation", "export", "lowering", "device"]
Outcome = Literal["no divergence", "found", "not run"]


class Growth(Contract):
    """How far a layer's result is from the reference.

    Attributes:
        layer: `embedding`, `layers.0`, … or `head`.
        error: Root mean square difference over the reference's root mean square.
        limit: What rounding alone may make of it.
    """

    layer: str
    error: float
    limit: float


class Explanation(Contract):
    """What `mobilepack verify --explain` found.

    Attributes:
        outcome: `not run` says why in `reason`.
        stage: Which step of the way from the checkpoint to the device is at fault.
        layer: As in `Growth`.
        operator: The exported operator, for example `rope`, `linear`, `attention`.
        parameter: Its weight, empty if it has none.
        call: The first call in which it differs.
        error: Of the operator's result, against what its own inputs should give.
        growth: Error of the layers that were looked at, in order.
        cause: Identifier of the likely cause, `unknown` if no known one explains the numbers.
        text: The cause in a sentence, with numbers.
        remedy: What to do.
        explained: Share of the squared error that the cause explains, 0 to 1.
        differences: Where the program is built otherwise than a fresh lowering.
        probes: Programs that were run with intermediate values as outputs.
        reason: Why it was not run, or what stands against an outcome.
    """

    schema_: Literal["mobilepack/explanation/1"] = Field("mobilepack/explanation/1", alias="schema")
    plan_id: str
    device: str
    outcome: Outcome
    stage: Stage | None = None
    layer: str = ""
    operator: str = ""
    parameter: str = ""
    call: str = ""
    error: float = 0.0
    growth: tuple[Growth, ...] = ()
    cause: str = ""
    text: str = ""
    remedy: str = ""
    explained: float = 0.0
    differences: tuple[str, ...] = ()
    probes: int = 0
    reason: str = ""
