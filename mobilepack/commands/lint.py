"""Lint Core ML programs for the Neural Engine: `mobilepack lint`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.placement import OperatorPlacement, Placement
from mobilepack.errors import UsageError
from mobilepack.mil.lint.rule import Rule
from mobilepack.mil.lint.run import LEVELS, Finding, lint_program, rules
from mobilepack.mil.opened import Opened, open_any
from mobilepack.mil.program import Function
from mobilepack.report.sarif import Result, sarif


@dataclass(frozen=True, slots=True)
class PlacementView:
    """What a device says about the program.

    Attributes:
        ane_share: Share of the estimated cost (of the operators, where cost is unknown).
        elsewhere: Operators that do not run on the Neural Engine, by type and unit, with counts.
        explained: Of those, how many a rule points at.
    """

    device: str
    system: str
    ane_share: float
    elsewhere: dict[str, int]
    explained: int
    total: int


@dataclass(frozen=True, slots=True)
class LintView:
    """Findings of a file, and what a device says where that was given.

    Attributes:
        clean: Ids of the rules that found nothing.
    """

    path: Path
    findings: tuple[Finding, ...]
    rules: tuple[Rule, ...]
    clean: tuple[str, ...]
    placement: PlacementView | None

    def count(self, level: str) -> int:
        """Return the number of findings of one level."""
        return sum(1 for item in self.findings if item.level == level)


def lint(path: Path, *, function: str | None = None, placement: Path | None = None) -> LintView:
    """Apply every rule to the programs of a file, and merge what a device said.

    Raises:
        MobilepackError: The file or the placement cannot be read, or they do not belong together.
    """
    opened = open_any(path)
    findings: list[Finding] = []
    for program in opened.packages.values():
        names = None if function is None else [n for n in program.functions if n == function]
        findings += lint_program(program, names)
    if function is not None and not any(function in p.functions for p in opened.packages.values()):
        known = [name for p in opened.packages.values() for name in p.functions]
        raise UsageError(
            "unknown-function",
            f"cannot find the function {function!r} in {path}",
            why=f"its functions are {', '.join(known)}",
            next="name one of them, or leave --function out",
        )
    order = {level: place for place, level in enumerate(LEVELS)}
    findings.sort(key=lambda item: (order[item.level], item.rule))
    hit = {item.rule for item in findings}
    merged = None if placement is None else _merge(opened, findings, Placement.read(placement))
    clean = tuple(item.id for item in rules() if item.id not in hit)
    return LintView(path, tuple(findings), rules(), clean, merged)


def _merge(opened: Opened, findings: list[Finding], placement: Placement) -> PlacementView:
    functions = {name: f for p in opened.packages.values() for name, f in p.functions.items()}
    pointed = {(item.function, item.name) for item in findings}
    elsewhere: dict[str, int] = {}
    explained = total = 0
    for part in placement.functions:
        if part.name not in functions:
            raise _stranger(opened.path, f"it has no function {part.name!r}")
        known = _outputs(functions[part.name])
        for item in part.operators:
            _check(opened.path, part.name, item, known)
            total += 1
            if item.preferred != "ane":
                key = f"{item.operator} on {item.preferred}"
                elsewhere[key] = elsewhere.get(key, 0) + 1
                explained += (part.name, item.output) in pointed
    ordered = dict(sorted(elsewhere.items(), key=lambda pair: (-pair[1], pair[0])))
    return PlacementView(
        placement.device, placement.system, placement.ane_share(), ordered, explained, total
    )


def _outputs(function: Function) -> dict[str, str]:
    return {o.name: op.type for op in function.block.walk() for o in op.outputs}


def _check(path: Path, function: str, item: OperatorPlacement, known: dict[str, str]) -> None:
    if known.get(item.output) != item.operator:
        raise _stranger(path, f"{function!r} has no {item.operator} {item.output!r}")


def _stranger(path: Path, why: str) -> UsageError:
    return UsageError(
        "other-placement",
        f"cannot merge the placement with {path}",
        why=why,
        next="write the placement of this very file on the device",
    )


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that was asked for, and whether it holds."""

    text: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether everything that was asked for holds."""

    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Say whether all gates hold."""
        return all(gate.passed for gate in self.gates)


def judge(view: LintView, *, min_ane_share: float | None, fail_on: str | None) -> Verdict:
    """Hold a lint against what was asked for.

    Raises:
        UsageError: A share was asked for without a placement; a lint proves none.
    """
    gates = []
    if min_ane_share is not None:
        if view.placement is None:
            raise UsageError(
                "no-placement",
                "cannot check --min-ane-share",
                why="where operators run cannot be told from the program",
                next="give what a device says with --placement FILE",
            )
        share = view.placement.ane_share
        text = f"the Neural Engine runs {share:.1%}, asked for is {min_ane_share:.1%}"
        gates.append(Gate(text, share >= min_ane_share))
    if fail_on is not None:
        names = [str(level) for level in LEVELS]
        count = sum(view.count(level) for level in names[: names.index(fail_on) + 1])
        gates.append(Gate(f"{count} findings of level {fail_on} or worse", not count))
    return Verdict(tuple(gates))


def write_sarif(view: LintView, path: Path) -> None:
    """Write the findings as SARIF 2.1.0, for code review tools and dashboards."""
    results = tuple(
        Result(
            item.rule,
            item.level,
            f"{item.operator} {item.name}: {item.detail}",
            f"{item.function}/{item.name}",
        )
        for item in view.findings
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sarif(view.rules, results, str(view.path)), encoding="utf-8")
