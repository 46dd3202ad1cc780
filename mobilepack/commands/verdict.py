"""From what the rungs of one package brought back to rows, levels and a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from mobilepack.commands.exported import ExportedRun
from mobilepack.commands.questions import Questions
from mobilepack.contract.manifest import BuildPlan
from mobilepack.contract.package import Package
from mobilepack.contract.parity import Level, Parity, ParityRow, Rung
from mobilepack.contract.reference import Reference, Rows, Variant
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Device, DeviceKind
from mobilepack.metrics.checks import Checks
from mobilepack.metrics.compare import failed_row, not_run
from mobilepack.metrics.ladder import Judge
from mobilepack.metrics.tolerance import Limit, Limits, measured_floor
from mobilepack.metrics.waterfall import Stood, Waterfall, budget_of
from mobilepack.target import load_target, read_target, target_names

_RUNGS: dict[DeviceKind, Rung] = {
    "host": "program on host",
    "emulator": "program on emulated arm64",
    "simulator": "program on device",
    "device": "program on device",
}
_ELSEWHERE: dict[Rung, str] = {
    "program on host": "this run was asked for another device",
    "program on emulated arm64": "no virtual phone runs here or was named: -d NAME",
    "program on device": "no device is attached or was named",
}
_RUNTIMES = {
    ("xnnpack", "host"): "XNNPACK",
    ("qnn", "host"): "HTP emulator",
    ("coreml", "host"): "MIL interpreter",
    ("onnx", "host"): "ONNX Runtime",
    ("xnnpack", "device"): "XNNPACK",
    ("qnn", "device"): "HTP",
    ("coreml", "device"): "Core ML",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """A device and what it brought back."""

    device: Device
    result: RunResult


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judges the runs of one package.

    Attributes:
        max_ppl_ratio: Limit of PPL(program) / PPL(eager fp32); None leaves it to the target file.
        limits: The target file; None for the package's own, if it is a shipped one.
    """

    package: Package
    reference: Reference
    checks: Checks
    questions: Questions
    max_ppl_ratio: float | None
    limits: Path | None = None

    def parity(self, exported: ExportedRun, host: Ran, last: Ran, utc: str) -> Parity:
        """Return the verdict of one device.

        Args:
            exported: What the exported graph brought back.
            host: What this machine did.
            last: What the device did; the same as `host` if that is it.
            utc: When the run began.
        """
        plan = self.package.manifest.plan
        judge = self.judge(_RUNGS[last.device.kind])
        rows = _with_other_rungs(self._rows(judge, exported, host, last))
        waterfall = Waterfall(judge, self.checks, budget(plan, self.max_ppl_ratio, self.limits))
        stood = [self._stood_exported(exported), self._stood("host", host)]
        if last.result is not host.result:
            stood.append(self._stood("device", last))
        on = {one.rung for one in stood}
        stood += [Stood(r, "", "", reason=why) for r, why in _ELSEWHERE.items() if r not in on]
        levels = waterfall.levels(sorted(stood, key=lambda one: LADDER.index(one.rung)))
        failed = {row.rung for row in rows if row.status == "failed"}
        failed |= {level.rung for level in levels if level.status == "failed"}
        return Parity(
            plan_id=self.package.manifest.plan_id,
            target=plan.target,
            recipe=plan.recipe.linear_text,
            device=last.device.id,
            utc=utc,
            passed=not failed,
            culprit=min(failed, key=LADDER.index) if failed else None,
            floor=judge.floor,
            rows=rows,
            levels=levels,
        )

    def broken(
        self, exported: ExportedRun, host: Ran, device: Device, why: RunFailedError, utc: str
    ) -> Parity:
        """Return the verdict of a device whose run did not reach its end; see `parity`."""
        rung = _RUNGS[device.kind]
        above = self.parity(exported, host, host, utc)
        row = failed_row(rung, _RUNGS[host.device.kind], "the whole ladder", str(why))
        level = Level(rung=rung, where=device.id, status="failed", reason=str(why))
        return above.model_copy(
            update={
                "device": device.id,
                "passed": False,
                "culprit": above.culprit or rung,
                "rows": tuple(row if one.rung == rung else one for one in above.rows),
                "levels": tuple(level if one.rung == rung else one for one in above.levels),
            }
        )

    def judge(self, rung: Rung) -> Judge:
        """Return what holds a rung against the reference."""
        floor, recipe = measured_floor(self.reference), self.package.manifest.plan.recipe.linear
        return Judge(self.reference, rung, floor, self.max_ppl_ratio, recipe)

    def _rows(
        self, judge: Judge, exported: ExportedRun, host: Ran, last: Ran
    ) -> tuple[ParityRow, ...]:
        rows = [*judge.eager(), *self._exported_rows(exported)]
        if last.result is host.result:
            return (*rows, *judge.program(self.checks, last.result))
        with_host = replace(judge, rung="program on host")
        return (
            *rows,
            *with_host.program(self.checks, host.result),
            *judge.program(self.checks, last.result),
            judge.beside(self.checks, last.result, with_host.rung, host.result),
        )

    def _exported_rows(self, exported: ExportedRun) -> tuple[ParityRow, ...]:
        if exported.result is None:
            return (not_run("exported", "the whole ladder", exported.reason),)
        judge, checks = self.judge("exported"), replace(self.checks, whole=())
        if exported.equals == "fp32" and judge.top == "quantised":
            only: dict[Variant, Rows] = {"fp32": self.reference.rows["fp32"]}
            judge = replace(judge, reference=Reference(self.reference.index, only), recipe="fp32")
        return judge.program(checks, exported.result)

    def _stood_exported(self, exported: ExportedRun) -> Stood:
        task = None if exported.result is None else self.questions.score(exported.result)
        return Stood(
            "exported", "", "PyTorch", exported.result, exported.equals, task, exported.reason
        )

    def _stood(self, where: str, ran: Ran) -> Stood:
        runtime = _RUNTIMES.get((self.package.manifest.plan.backend, where), "")
        task = self.questions.score(ran.result)
        equals = self.judge("program on host").top
        return Stood(_RUNGS[ran.device.kind], ran.device.id, runtime, ran.result, equals, task)


LADDER: tuple[Rung, ...] = get_args(Rung)


def budget(plan: BuildPlan, max_ppl_ratio: float | None, file: Path | None = None) -> Limits:
    """Return what a package may lose against eager fp32, by its target file and the user.

    Raises:
        UsageError: The target file is wrong.
    """
    name = str(file) if file is not None else plan.target.removesuffix(f"-{plan.soc_model}")
    allowed: Limits = {}
    if file is not None or name in target_names():
        target = load_target(name) if file is None else read_target(file)
        limits = target.parity
        allowed = budget_of(
            limits.max_ppl_ratio,
            limits.max_kl_mean,
            limits.min_top1_agreement,
            limits.min_sqnr_db,
            target.name,
        )
    if max_ppl_ratio is not None:
        allowed.pop("ppl_ratio_low", None)
        allowed["ppl_ratio"] = Limit(max_ppl_ratio, "asked for with --max-ppl-ratio")
    return allowed


def _with_other_rungs(rows: tuple[ParityRow, ...]) -> tuple[ParityRow, ...]:
    """Return the ladder with a row for every rung that nobody stood on."""
    seen = {row.rung for row in rows}
    return rows + tuple(
        not_run(rung, "the whole ladder", why)
        for rung, why in _ELSEWHERE.items()
        if rung not in seen
    )
