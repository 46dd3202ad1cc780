"""gate.toml: which figures may change by how much, and what they must keep to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mobilepack.contract.base import Contract
from mobilepack.errors import UsageError
from mobilepack.toml_file import read_toml

Percent = Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")]
Outcome = Literal["passed", "failed", "not judged"]


class Rule(Contract):
    """One rule; at least one of its limits is set.

    Attributes:
        metric: Name of a figure as `compare` prints it; `*` stands for anything.
        max: Largest value that passes.
        min: Smallest value that passes.
        max_increase: How much larger it may be than before, in percent of before.
        max_decrease: Likewise smaller.
        required: Whether the rule fails when no figure has the name.
    """

    metric: str = Field(min_length=1)
    max: float | None = None
    min: float | None = None
    max_increase: Percent | None = None
    max_decrease: Percent | None = None
    required: bool = True

    @model_validator(mode="after")
    def _limits(self) -> Self:
        limits = (self.max, self.min, self.max_increase, self.max_decrease)
        if all(limit is None for limit in limits):
            raise ValueError("a rule needs one of max, min, max_increase, max_decrease")
        return self


class Gate(Contract):
    """A gate file: a list of rules."""

    rule: tuple[Rule, ...] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path) -> Gate:
        """Read a gate file.

        Raises:
            UsageError: It is missing, no TOML, or breaks the schema; all problems at once.
        """
        import json

        def refused(err: Exception) -> UsageError:
            return UsageError(
                "unreadable-gate",
                f"cannot read the gate {path}",
                why=str(err),
                next="docs/tutorials/gates.md shows one",
            )

        return cls.parse(json.dumps(read_toml(path, refused), default=str), str(path))


class Judged(Contract):
    """What became of one rule for one figure.

    Attributes:
        metric: The figure, or the rule's pattern if nothing has such a name.
        why: The limit and what was found.
    """

    metric: str
    outcome: Outcome
    why: str


def percent(text: str) -> float:
    """Return `5%` as 0.05."""
    return float(text.removesuffix("%")) / 100
