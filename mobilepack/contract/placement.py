"""placement.json: where a device runs each operator, as `MLComputePlan` says there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract

Unit = Literal["cpu", "gpu", "ane"]


class OperatorPlacement(Contract):
    """One operator.

    Attributes:
        operator: Its type (`MLModelStructure.Program.Operation.operatorName` without the opset).
        output: Name of its first output.
        preferred: Where it runs (`MLComputePlan.deviceUsage(for:).preferred`).
        supported: Where it could run.
        cost: Its share of the function's estimated cost (`estimatedCost(of:).weight`), 0 to 1.
    """

    operator: str
    output: str
    preferred: Unit
    supported: tuple[Unit, ...] = ()
    cost: float | None = Field(default=None, ge=0, le=1)


class FunctionPlacement(Contract):
    """The operators of one function that are not constants."""

    name: str
    operators: tuple[OperatorPlacement, ...]


class Placement(Contract):
    """What one device says about one program.

    Attributes:
        device: Model identifier, such as `iPhone16,1`.
        system: Operating system with its version, such as `iOS 18.5`.
        compute_units: The units that the plan was asked for.
    """

    schema_: Literal["mobilepack/placement/1"] = Field("mobilepack/placement/1", alias="schema")
    device: str
    system: str
    compute_units: Literal["all", "cpu_and_ne", "cpu_and_gpu", "cpu_only"] = "cpu_and_ne"
    functions: tuple[FunctionPlacement, ...]

    def ane_share(self) -> float:
        """Return the share that the Neural Engine runs: of the cost where all know it, else of the
        operators; 0 without operators.
        """
        every = [item for function in self.functions for item in function.operators]
        costs = [item.cost for item in every]
        known = [cost for cost in costs if cost is not None]
        weights = known if len(known) == len(every) and sum(known) > 0 else [1.0] * len(every)
        total = sum(weights)
        placed = sum(w for w, item in zip(weights, every, strict=True) if item.preferred == "ane")
        return placed / total if total else 0.0
