"""compare: what changed between two packages, runs or campaigns, and whether a gate lets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.commands.figures import facts
from mobilepack.contract.gate import Gate, Judged
from mobilepack.errors import CheckFailedError
from mobilepack.metrics.changes import Change, changes
from mobilepack.metrics.gating import judge


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    Attributes:
        before: The first package, run folder or campaign.
        after: The second; the same one when a gate has absolute rules only.
        judged: Outcomes of the gate, empty without one.
    """

    before: Path
    after: Path
    changes: tuple[Change, ...]
    judged: tuple[Judged, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no rule of the gate failed."""
        return all(one.outcome != "failed" for one in self.judged)

    def raise_if_failed(self) -> None:
        """Raise `CheckFailedError` (exit code 3) naming the rows that broke the gate."""
        failed = [one for one in self.judged if one.outcome == "failed"]
        if failed:
            raise CheckFailedError(
                "gate-failed",
                f"{len(failed)} of {len(self.judged)} rows break the gate",
                why="; ".join(f"{one.metric}: {one.why}" for one in failed[:5]),
                next="mend what changed, or change the rule on purpose",
            )


def compare(before: Path, after: Path, gate: Gate | None = None) -> Comparison:
    """Compare two packages with the newest runs of each device in them, two runs, or two campaigns.

    Raises:
        MissingError: One is none of these.
        UsageError: A package or a result file is damaged.
    """
    found = changes(tuple(facts(before)), tuple(facts(after)))
    judged = judge(gate, found) if gate else ()
    return Comparison(before, after, found, judged)
