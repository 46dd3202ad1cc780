"""What a package's files prove, in sentences: the same for the terminal and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mobilepack.contract.bench import Bench
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.parity import Parity, ParityRow
from mobilepack.report.junit import NOT_VERIFIED
from mobilepack.report.runs import Runs

Status = Literal["passed", "failed", "measured", "not run", "unreadable", "noted"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence and how it stands."""

    status: Status
    text: str


def findings(manifest: Manifest, runs: Runs) -> tuple[Finding, ...]:
    """Return what is proved, what failed, what was measured, and what nobody looked at."""
    found = [*_of_package(manifest)]
    for parity in runs.parity:
        found += _of_parity(parity)
    if not runs.parity:
        found.append(Finding("not run", NOT_VERIFIED))
    for bench in runs.bench:
        found += _of_bench(bench)
    if not runs.bench:
        found.append(Finding("not run", "no timing of this build: run `mobilepack bench`"))
    found += [Finding("unreadable", f"{one.path}: {one.why}") for one in runs.unreadable]
    if runs.stale:
        count = len(runs.stale)
        found.append(Finding("noted", f"{count} older results of another build are left out"))
    return tuple(found)


def _of_package(manifest: Manifest) -> list[Finding]:
    placement = manifest.placement
    weights = placement.delegated_weight_bytes + placement.fallback_weight_bytes
    share = placement.delegated_weight_bytes / weights if weights else 0.0
    backend = manifest.plan.backend
    placed = f"{share:.1%} of the weight bytes are computed inside {backend}"
    rest = ", ".join(f"{item.operator} ×{item.count}" for item in placement.fallback)
    placed += f"; outside it run {rest}" if rest else "; nothing runs outside it"
    quantised = f"{manifest.quantised_share:.1%} of the weights are quantised"
    return [Finding("noted", placed), Finding("noted", quantised)]


def _of_parity(parity: Parity) -> list[Finding]:
    judged = [row for row in parity.rows if row.status in ("passed", "failed")]
    positions = sum(row.compared for row in judged)
    where = f"on {parity.device}"
    if parity.passed:
        text = f"{len(judged)} comparisons over {positions} positions are within tolerance {where}"
        found = [Finding("passed", text)]
    else:
        text = f"the first rung that broke a tolerance {where} is {parity.culprit!r}"
        found = [Finding("failed", text)]
    found += [Finding("failed", _row_text(row)) for row in judged if row.status == "failed"]
    found += [Finding("not run", _row_text(row)) for row in parity.rows if row.status == "not run"]
    return found


def _row_text(row: ParityRow) -> str:
    return f"{row.rung}: {row.check}" + (f": {row.reason}" if row.reason else "")


def _of_bench(bench: Bench) -> list[Finding]:
    found = [
        Finding("measured", f"{test.test}: {test.avg_ts:.1f} ± {test.stddev_ts:.1f} tok/s"
                f" on {bench.device} ({test.round_tok_per_s.verdict})")
        for test in bench.tests
    ]  # fmt: skip
    if not bench.representative:
        found.append(Finding("noted", f"timings of {bench.device} are not a phone's"))
    return found
