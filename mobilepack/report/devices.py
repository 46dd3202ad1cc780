"""What devices said about a Core ML package: where its operators run, and how long it loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.package import Package
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MobilepackError
from mobilepack.mil.lint.placement import PlacementView, compared
from mobilepack.mil.lint.run import lint_program
from mobilepack.mil.opened import open_any
from mobilepack.report.findings import Finding
from mobilepack.report.runs import RUNS

RESULT = "run_result.json"


@dataclass(frozen=True, slots=True)
class Placed:
    """One device's word.

    Attributes:
        name: Of the device, with its UDID.
        load_ms: First load: compiled, and specialised for the device.
        cached_load_ms: The next one; None if it was not taken.
        thermal: Thermal state before and after the run, as the device calls it.
        view: Placement beside what lint had foreseen.
    """

    name: str
    load_ms: float
    cached_load_ms: float | None
    thermal: str
    view: PlacementView

    @property
    def loads(self) -> str:
        """The load times in words."""
        first = f"first load {self.load_ms:,.0f} ms"
        if self.cached_load_ms is None:
            return first
        return f"{first}, the next {self.cached_load_ms:,.0f} ms"


def placed_on(package: Package) -> tuple[tuple[Placed, ...], tuple[Finding, ...]]:
    """Return what the newest run of each device says, and sentences about it.

    A result that cannot be read, or is of another program, is a sentence too.
    """
    if package.manifest.plan.backend != "coreml":
        return (), ()
    results, found = _results(package.root)
    rows = []
    for result in results:
        try:
            rows.append(_placed(package, result))
        except MobilepackError as err:
            found.append(Finding("unreadable", f"{result.environment.name}: {err.why}"))
    found += [Finding("measured", sentence(row)) for row in rows]
    if not rows:
        why = "no device said where the operators run: run `mobilepack verify -d UDID`"
        found.append(Finding("not run", why))
    return tuple(rows), tuple(found)


def sentence(row: Placed) -> str:
    """Return one row in words."""
    view = row.view
    away = sum(view.elsewhere.values())
    return (
        f"{row.name}: {view.ane_share:.1%} on the Neural Engine ({view.total - away} of"
        f" {view.total} operators); lint had pointed at {view.explained} of the {away} elsewhere,"
        f" and at {view.unfounded} that do run there; {row.loads}"
    )


def _results(root: Path) -> tuple[list[RunResult], list[Finding]]:
    """Return the newest result with a placement of each device."""
    newest: dict[str, RunResult] = {}
    found = []
    for path in sorted((root / RUNS).glob(f"*/*/{RESULT}")):
        try:
            result = RunResult.read(path)
        except MobilepackError as err:
            found.append(Finding("unreadable", f"{path}: {err.why}"))
            continue
        if result.placement is not None:
            newest[path.parent.parent.name] = result
    return list(newest.values()), found


def _placed(package: Package, result: RunResult) -> Placed:
    opened = open_any(package.program)
    findings = [one for program in opened.packages.values() for one in lint_program(program)]
    if result.placement is None:
        raise AssertionError("only results with a placement come here")
    view = compared(opened.packages.values(), findings, result.placement, str(package.program))
    conditions = result.environment.conditions
    states = [conditions.get(f"thermal_state_{when}", "unknown") for when in ("before", "after")]
    cached = result.cached_load_ns
    return Placed(
        name=result.environment.name,
        load_ms=result.load_ns / 1e6,
        cached_load_ms=None if cached is None else cached / 1e6,
        thermal=" → ".join(states),
        view=view,
    )
