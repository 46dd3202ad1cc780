"""Apply all rules to programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mobilepack.mil.lint import operators, values, weights
from mobilepack.mil.lint.rule import RULES, Level, Rule, Subject
from mobilepack.mil.program import Program

# Importing a group enters its rules.
GROUPS = (values, operators, weights)
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that applies at one place.

    Attributes:
        operator: Type of the operator, or "input", "output", "state", "program".
        name: The value's name.
    """

    rule: str
    level: Level
    function: str
    operator: str
    name: str
    detail: str


def rules() -> tuple[Rule, ...]:
    """Return all rules, sorted by id."""
    return tuple(sorted(RULES.values(), key=lambda item: item.id))


def lint_program(program: Program, functions: Iterable[str] | None = None) -> tuple[Finding, ...]:
    """Apply every rule to functions of a program (all by default), in order of rules."""
    chosen = program.functions if functions is None else tuple(functions)
    found = []
    for name in chosen:
        subject = Subject(program, program.functions[name])
        for item in rules():
            found += [
                Finding(item.id, item.level, name, hit.operator, hit.name, hit.detail)
                for hit in item.check(subject)
            ]
    return tuple(found)
