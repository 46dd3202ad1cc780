"""verify: run a package's program and hold it against eager PyTorch, rung by rung."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mobilepack.contract.package import Package, open_package
from mobilepack.contract.parity import Parity, ParityRow, Rung
from mobilepack.contract.reference import Reference
from mobilepack.contract.run_folder import RunFolder, new_run_folder
from mobilepack.contract.run_plan import RunPlan
from mobilepack.errors import CheckFailedError, MissingError
from mobilepack.harness.base import DeviceKind, Harness, Limits, OnProgress, silent
from mobilepack.harness.host import HostHarness
from mobilepack.metrics.checks import Checks, plan_checks
from mobilepack.metrics.compare import not_run
from mobilepack.metrics.ladder import Judge
from mobilepack.metrics.tolerance import measured_floor

_RUNGS: dict[DeviceKind, Rung] = {
    "host": "program on host",
    "emulator": "program on emulated arm64",
    "simulator": "program on device",
    "device": "program on device",
}
_ELSEWHERE: tuple[tuple[Rung, str], ...] = (
    ("exported", "the package holds the lowered program, not the exported graph"),
    ("program on host", "this run was asked for another device"),
    ("program on emulated arm64", "no virtual phone was asked for: -d NAME"),
    ("program on device", "no device was asked for"),
)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Options of `mobilepack verify`.

    Attributes:
        threads: Threads of the runtime; 0 for one per physical core.
        max_ppl_ratio: Fail when PPL(program) / PPL(eager fp32) exceeds it; None only reports it.
        decode_steps: Decode steps per check at most.
        timeout_s: Limit of the whole run.
    """

    threads: int = 0
    max_ppl_ratio: float | None = None
    decode_steps: int = 64
    timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What `verify` found; already written to `folder`.

    Attributes:
        folder: `<package>/runs/<device>/<utc>` with parity.json, run_plan.json, run_result.json,
            log.txt.
    """

    parity: Parity
    folder: Path

    def raise_if_failed(self) -> None:
        """Raise `CheckFailedError` (exit code 3) naming the first rung that broke a tolerance."""
        failed = [row for row in self.parity.rows if row.status == "failed"]
        if failed:
            first = failed[0]
            raise CheckFailedError(
                "parity-failed",
                f"{first.rung} does not compute what {first.against} computes",
                why=f"{first.check}: {first.reason}"
                + (f" (and {len(failed) - 1} more rows)" if len(failed) > 1 else ""),
                next=f"read {self.folder / 'parity.json'}",
            )


def verify(
    path: Path,
    options: VerifyOptions = VerifyOptions(),
    *,
    harness: Harness | None = None,
    host: Harness | None = None,
    on_progress: OnProgress = silent,
) -> VerifyResult:
    """Verify a package on the host (or on the device of `harness`) and write the results.

    A device is also held against this machine, which runs the same plan (with `host`).

    The caller prints `result.parity.rows` and then calls `result.raise_if_failed()`.

    Raises:
        MissingError: There is no package, or it has no flight recorder to compare with.
        UsageError: The package is damaged.
        RunFailedError: The program could not be run to its end.
    """
    package = open_package(path)
    reference = _reference(package)
    runner = harness or HostHarness()
    build = package.manifest.plan
    checks = plan_checks(
        reference.index,
        prefill_chunk=build.prefill_chunk,
        max_seq_len=build.max_seq_len,
        decode_steps=options.decode_steps,
    )
    plan = _run_plan(package, reference, checks, options)
    folder = new_run_folder(package.root, runner.device.id)
    folder.write("run_plan.json", plan)
    limits = Limits.within(options.timeout_s)
    result = runner.run(package.root, plan, log=folder.log, limits=limits, on_progress=on_progress)
    folder.write("run_result.json", result)
    floor, recipe = measured_floor(reference), build.recipe.linear
    rung = _RUNGS[runner.device.kind]
    judge = Judge(reference, rung, floor, options.max_ppl_ratio, recipe)
    rows = judge.rows(checks, result)
    if runner.device.kind != "host":
        with_host = replace(judge, rung="program on host")
        beside = host or HostHarness()
        there = beside.run(
            package.root, plan, log=folder.log, limits=limits, on_progress=on_progress
        )
        folder.write("host_result.json", there)
        rows = (
            *with_host.rows(checks, there),
            *judge.program(checks, result),
            judge.beside(checks, result, with_host.rung, there),
        )
    rows = _with_other_rungs(rows, {row.rung for row in rows})
    parity = _parity(package, judge, rows, runner.device.id, folder)
    folder.write("parity.json", parity)
    return VerifyResult(parity, folder.path)


def _reference(package: Package) -> Reference:
    if not package.lists("reference"):
        raise MissingError(
            "no-reference",
            f"{package.root} has no flight recorder to compare with",
            why="its manifest lists no file below reference/",
            next="build the package again with this version of mobilepack",
        )
    return Reference.read(package.reference)


def _run_plan(
    package: Package, reference: Reference, checks: Checks, options: VerifyOptions
) -> RunPlan:
    build = package.manifest.plan
    return RunPlan(
        program=package.program.relative_to(package.root).as_posix(),
        max_seq_len=build.max_seq_len,
        prefill_chunk=build.prefill_chunk,
        sample_ids=reference.index.sample_ids,
        top_k=reference.index.top_k,
        threads=options.threads,
        items=checks.items,
    )


def _with_other_rungs(rows: tuple[ParityRow, ...], seen: set[Rung]) -> tuple[ParityRow, ...]:
    """Return the ladder with a row for every rung that nobody stood on."""
    return rows + tuple(
        not_run(rung, "the whole ladder", why) for rung, why in _ELSEWHERE if rung not in seen
    )


def _parity(
    package: Package, judge: Judge, rows: tuple[ParityRow, ...], device: str, folder: RunFolder
) -> Parity:
    plan = package.manifest.plan
    failed = [row.rung for row in rows if row.status == "failed"]
    return Parity(
        plan_id=package.manifest.plan_id,
        target=plan.target,
        recipe=plan.recipe.linear_text,
        device=device,
        utc=folder.utc,
        passed=not failed,
        culprit=failed[0] if failed else None,
        floor=judge.floor,
        rows=rows,
    )
