"""parity.json: the ladder, one row per comparison, with tolerance, verdict and reason."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract

Rung = Literal[
    "eager fp32",
    "eager quantised",
    "exported",
    "program on host",
    "program on emulated arm64",
    "program on device",
]
Status = Literal["passed", "failed", "reported", "not run"]


class Measured(Contract):
    """One metric of a row.

    Attributes:
        name: Metric and unit, for example `kl_max` (nats), `sqnr_db`, `top1_agreement` (0 to 1).
        value: Its value; SQNR of identical values is written as 200 dB.
        limit: Tolerance, None when the value is reported and not judged.
        better: Whether the value must be at most (`lower`) or at least (`higher`) the limit.
        reason: Why the limit is what it is.
    """

    name: str
    value: float
    better: Literal["lower", "higher"]
    limit: float | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the value keeps its limit; a value without limit always does."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit


class ParityRow(Contract):
    """One comparison of the ladder.

    Attributes:
        rung: What was judged.
        against: What it was held against, None for a rung that did not run.
        check: What was run, for example `prefill of 1, then decode`.
        compared: How many positions were compared.
        metrics: Values with their tolerances.
        status: `reported` has values and no tolerance; `not run` says why in `reason`.
        reason: Why it failed or did not run; else empty or a remark.
    """

    rung: Rung
    against: Rung | None
    check: str
    compared: int = Field(ge=0)
    metrics: tuple[Measured, ...]
    status: Status
    reason: str = ""


class PerturbationFloor(Contract):
    """How far the quantised eager model moves when its inputs are perturbed: its numeric noise.

    Attributes:
        rms_over_std: Over all positions together.
        position_rms_over_std: Of a single position: 19 of 20 move less.
    """

    rms_over_std: float
    cosine_min: float
    kl_max: float
    position_rms_over_std: float | None = None


class Loss(Contract):
    """How far a level lies from another, over the same positions of the same tokens.

    Attributes:
        against: The level that it is held against.
        metrics: `sqnr_db`, `cosine_min`, `kl_mean`, `kl_p99`, `kl_max`, `top1_agreement`,
            `ppl_ratio` with its 95 % interval `ppl_ratio_low` to `ppl_ratio_high`, `rms_over_std`;
            those of llama.cpp's `--kl-divergence` under our names.
    """

    against: Rung
    metrics: tuple[Measured, ...]


class Share(Contract):
    """So many of so many: tokens of a greedy text, right answers of a task."""

    count: int = Field(ge=0)
    of: int = Field(ge=1)


class Level(Contract):
    """A rung of the waterfall: everything that was lost down to it.

    Attributes:
        where: Device that it stood on, empty for eager PyTorch.
        runtime: What computed it: `PyTorch`, `XNNPACK`, `HTP emulator`, `MIL interpreter`, ….
        compared: Positions; the same ones for every level.
        losses: Against the level before it, then against eager fp32 if that is another one.
        greedy: Tokens of the reference's greedy text that it also says, from the first on.
        task: Right answers to the questions that every level was asked.
        reason: Why it broke a tolerance or did not run.
    """

    rung: Rung
    where: str = ""
    runtime: str = ""
    status: Status
    compared: int = Field(ge=0, default=0)
    losses: tuple[Loss, ...] = ()
    greedy: Share | None = None
    task: Share | None = None
    reason: str = ""


class Parity(Contract):
    """Verdict of `mobilepack verify` on one package and one device.

    Attributes:
        culprit: First rung that broke a tolerance, None when all passed.
        utc: When the run began, `YYYY-MM-DDTHH:MM:SSZ`.
        levels: The waterfall, from eager fp32 down; empty in results of older versions.
    """

    schema_: Literal["mobilepack/parity/1"] = Field("mobilepack/parity/1", alias="schema")
    plan_id: str
    target: str
    recipe: str
    device: str
    utc: str
    passed: bool
    culprit: Rung | None
    floor: PerturbationFloor | None
    rows: tuple[ParityRow, ...]
    levels: tuple[Level, ...] = ()
