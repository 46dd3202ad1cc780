"""Lint Core ML programs for the Neural Engine: `mobilepack lint`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.placement import Placement
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import UsageError
from mobilepack.mil.lint.placement import PlacementView, compared
from mobilepack.mil.lint.rule import Rule
from mobilepack.mil.lint.run import LEVELS, Finding, lint_program, rules
from mobilepack.mil.opened import open_any
from mobilepack.report.sarif import Result, sarif


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
    merged = None
    if placement is not None:
        found = read_placement(placement)
        merged = compared(opened.packages.values(), findings, found, str(opened.path))
    clean = tuple(item.id for item in rules() if item.id not in hit)
    return LintView(path, tuple(findings), rules(), clean, merged)


def read_placement(path: Path) -> Placement:
    """Read a placement: a placement.json, or the one in a run_result.json.

    Raises:
        UsageError: It is neither, or the run brought none back.
    """
    try:
        is_run = (
            json.loads(path.read_bytes()).get("schema", "").startswith("mobilepack/run-result/")
        )
    except (OSError, ValueError, AttributeError):
        is_run = False  # whoever reads it as a placement says what is wrong
    if not is_run:
        return Placement.read(path)
    found = RunResult.read(path).placement
    if found is None:
        raise UsageError(
            "no-placement",
            f"{path} says nothing of operators",
            why="the run was not on a device that tells, or its program is no Core ML package",
            next="mobilepack verify PACKAGE -d UDID, with a package of --target coreml-ios18",
        )
    return found


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
