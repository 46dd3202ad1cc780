"""A gate's rows in the formats that CI systems read: JUnit XML and SARIF 2.1.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.base import write_atomically
from mobilepack.contract.gate import Judged
from mobilepack.contract.gate import Outcome as Judgement
from mobilepack.report import junit
from mobilepack.report.junit import Case, Outcome, Suite
from mobilepack.report.sarif import Result, sarif

_OUTCOMES: dict[Judgement, Outcome] = {
    "passed": "passed",
    "failed": "failure",
    "not judged": "skipped",
}


def write_junit(path: Path, judged: Sequence[Judged], suite: str) -> None:
    """Write one test case per row; what was not judged is a skipped case with its reason."""
    cases = [Case(one.metric, _OUTCOMES[one.outcome], one.why) for one in judged]
    junit.write_junit(path, Suite(suite, cases))


@dataclass(frozen=True, slots=True)
class _Rule:
    """The one rule of SARIF that all broken rows share."""

    id: str = "gate"
    name: str = "A figure breaks a rule of the gate"
    level: str = "error"
    why: str = "a package or a run changed by more than the gate allows"
    remedy: str = "mend what changed, or change the rule on purpose"
    source: str = "the gate file"


def write_sarif(path: Path, judged: Sequence[Judged], gate: Path | None) -> None:
    """Write one result per broken row, located in the gate file."""
    failed = [one for one in judged if one.outcome == "failed"]
    results = [Result("gate", "error", f"{one.metric}: {one.why}", one.metric) for one in failed]
    artifact = gate.as_posix() if gate is not None and not gate.is_absolute() else "gate.toml"
    write_atomically(path, sarif([_Rule()], results, artifact, "mobilepack compare"))
