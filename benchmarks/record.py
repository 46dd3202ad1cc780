"""Say what a results document holds, and write it so that a killed run loses nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from benchmarks.host import Host
from benchmarks.summary import Metrics, Ratio

SCHEMA = "mobilepack.benchmarks/1"

Status = Literal["done", "failed", "not run"]
LoadAverage = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StepCost:
    """Hold the cost of one command of a build; see `process.Measured` for the fields."""

    label: str
    command: tuple[str, ...]
    counted: bool
    wall_s: float
    cpu_user_s: float
    cpu_system_s: float
    peak_rss_bytes: int
    peak_anonymous_bytes: int
    other_cpu_share: float


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Hold the cost of turning one checkpoint into what one peer runs.

    Attributes:
        why: Empty when done; otherwise the observed cause.
        steps: Every command that ran, counted or not. The totals add counted ones;
            memory is the largest of theirs.
        file_bytes: Weights and graph, without a tokenizer.
        parameters: Of the shape, a tied head once.
        load_average: 1, 5 and 15 minutes, when the build began.
    """

    shape: str
    peer: str
    status: Status
    why: str = ""
    steps: tuple[StepCost, ...] = ()
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    peak_anonymous_bytes: int = 0
    file_bytes: int = 0
    parameters: int = 0
    load_average: LoadAverage = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ChildRun:
    """Hold one child process of the run suite.

    Attributes:
        round: Counted from 1.
        samples: `workload.Samples`; None where the child failed.
        other_cpu_share: See `process.Measured`.
    """

    peer: str
    flash_attention: bool
    round: int
    status: Status
    why: str = ""
    samples: dict[str, Any] | None = None
    metrics: Metrics = field(default_factory=dict)
    waited_s: float = 0.0
    wall_s: float = 0.0
    other_cpu_share: float = 0.0
    load_average: LoadAverage = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PeerSummary:
    """Hold what is left of a peer's rounds.

    Attributes:
        rounds: Those that all settings of the peer finished, counted from 1.
        median: Metric to its median over those rounds.
        per_round: Metric to its value in each of those rounds; where a peer has several
            settings, the best of them.
        best_setting: Metric to the flash-attention setting that won most rounds.
    """

    peer: str
    rounds: tuple[int, ...]
    median: Metrics
    per_round: dict[str, tuple[float, ...]]
    best_setting: dict[str, bool]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Hold all rounds of one shape.

    Attributes:
        ratios: Peer to metric to (subject / peer); the subject is the first peer named.
    """

    shape: str
    subject: str
    threads: int
    rounds: tuple[ChildRun, ...]
    summaries: tuple[PeerSummary, ...]
    ratios: dict[str, dict[str, Ratio]]
    not_run: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Document:
    """Hold one run of the benchmarks, growing as results come in."""

    command: tuple[str, ...]
    started_utc: str
    host: Host
    load_average_before: LoadAverage
    protocol: tuple[str, ...]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    build: list[BuildResult] = field(default_factory=list)
    run: list[RunResult] = field(default_factory=list)
    finished_utc: str | None = None
    load_average_after: LoadAverage | None = None
    schema: str = SCHEMA
    kind: str = "benchmarks"
    # A shared host is never a phone: STYLE.md, "Numbers are honest".
    representative: bool = False

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read what `save` wrote.

        Raises:
            pydantic.ValidationError: The file is not such a document.
        """
        return TypeAdapter(cls).validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Write the document under a temporary name, then rename it; no path names this machine."""
        text = json.dumps(asdict(self), indent=1)
        for folder, name in ((Path(__file__).resolve().parent.parent, "."), (Path.home(), "~")):
            text = text.replace(str(folder), name)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
