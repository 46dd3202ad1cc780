"""What the rules foresaw, held against what a device says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mobilepack.contract.placement import OperatorPlacement, Placement
from mobilepack.errors import UsageError
from mobilepack.mil.lint.run import Finding
from mobilepack.mil.program import Function, Program


@dataclass(frozen=True, slots=True)
class PlacementView:
    """What a device says about a program, and what the rules had said.

    Attributes:
        ane_share: Share of the estimated cost (of the operators, where cost is unknown).
        elsewhere: Operators that do not run on the Neural Engine, by type and unit, with counts.
        explained: Of those, how many a rule points at.
        unfounded: How many operators run on the Neural Engine although a rule points at them.
    """

    device: str
    system: str
    ane_share: float
    elsewhere: dict[str, int]
    explained: int
    total: int
    unfounded: int = 0

    @property
    def missed(self) -> int:
        """How many run elsewhere and no rule says why."""
        return sum(self.elsewhere.values()) - self.explained


def compared(
    programs: Iterable[Program], findings: Sequence[Finding], placement: Placement, name: str
) -> PlacementView:
    """Hold findings against a placement.

    Args:
        programs: Of one file.
        findings: What lint found in them.
        placement: Of the same file.
        name: How errors call the file.

    Raises:
        UsageError: The placement is of another file.
    """
    functions = {key: f for program in programs for key, f in program.functions.items()}
    pointed = {(item.function, item.name) for item in findings}
    elsewhere: dict[str, int] = {}
    explained = unfounded = total = 0
    for part in placement.functions:
        if part.name not in functions:
            raise _stranger(name, f"it has no function {part.name!r}")
        known = _outputs(functions[part.name])
        for item in part.operators:
            _check(name, part.name, item, known)
            total += 1
            is_pointed = (part.name, item.output) in pointed
            if item.preferred == "ane":
                unfounded += is_pointed
                continue
            key = f"{item.operator} on {item.preferred}"
            elsewhere[key] = elsewhere.get(key, 0) + 1
            explained += is_pointed
    ordered = dict(sorted(elsewhere.items(), key=lambda pair: (-pair[1], pair[0])))
    share = placement.ane_share()
    return PlacementView(
        placement.device, placement.system, share, ordered, explained, total, unfounded
    )


def _outputs(function: Function) -> dict[str, str]:
    return {o.name: op.type for op in function.block.walk() for o in op.outputs}


def _check(name: str, function: str, item: OperatorPlacement, known: dict[str, str]) -> None:
    if known.get(item.output) != item.operator:
        raise _stranger(name, f"{function!r} has no {item.operator} {item.output!r}")


def _stranger(name: str, why: str) -> UsageError:
    return UsageError(
        "other-placement",
        f"cannot merge the placement with {name}",
        why=why,
        next="write the placement of this very file on the device",
    )
