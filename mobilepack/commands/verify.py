"""verify: run a package's program and hold it against eager PyTorch, rung by rung."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from mobilepack.commands.exported import ExportedRun, When, run_exported
from mobilepack.commands.questions import questions
from mobilepack.commands.verdict import Ran, Verdict
from mobilepack.contract.explanation import Explanation
from mobilepack.contract.package import Package, open_package
from mobilepack.contract.parity import Parity
from mobilepack.contract.reference import Reference
from mobilepack.contract.run_folder import RunFolder, new_run_folder
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import CheckFailedError, MissingError, RunFailedError
from mobilepack.harness.base import Harness, Limits, OnProgress, silent
from mobilepack.harness.host import HostHarness
from mobilepack.harness.lease import BUSY
from mobilepack.metrics.checks import Checks, plan_checks
from mobilepack.metrics.ladder import Judge

_FEW_PARAMETERS = 20_000_000  # below that a question costs less than a second anywhere
_QUESTIONS = 8


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Options of `mobilepack verify`.

    Attributes:
        threads: Threads of the runtime; 0 for one per physical core.
        max_ppl_ratio: Fail when PPL(program) / PPL(eager fp32) exceeds it; None leaves it to the
            target file.
        decode_steps: Decode steps per check at most.
        timeout_s: Limit of the whole run.
        exported: Whether the exported graph is run: `auto` does if that costs a minute at most.
        questions: How many questions of `pocket` every level is asked; None: 8 of models that
            answer fast everywhere, none of others.
        limits: Target file whose `[parity]` holds; None for the package's own target.
    """

    threads: int = 0
    max_ppl_ratio: float | None = None
    decode_steps: int = 64
    timeout_s: float = 3600.0
    exported: When = "auto"
    questions: int | None = None
    limits: Path | None = None


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What `verify` found; already written to `folder`.

    Attributes:
        folder: `<package>/runs/<device>/<utc>` with parity.json, run_plan.json, run_result.json,
            log.txt.
        explanation: What `explain` added.
    """

    parity: Parity
    folder: Path
    explanation: Explanation | None = None

    @property
    def passed(self) -> bool:
        """Whether every tolerance was kept, and nothing else was found to be at fault."""
        found = self.explanation is not None and self.explanation.outcome == "found"
        return self.parity.passed and not found

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
        if self.explanation is not None and not self.passed:
            raise CheckFailedError(
                "fault-found",
                f"the package's {self.explanation.stage} is not its checkpoint's",
                why=self.explanation.text,
                next=self.explanation.remedy,
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

    The caller prints `result.parity.levels` and then calls `result.raise_if_failed()`.

    Raises:
        MissingError: There is no package, or it has no flight recorder to compare with.
        UsageError: The package is damaged.
        RunFailedError: The program could not be run to its end.
    """
    return Ladder(path, options, host=host).on(harness or HostHarness(), on_progress)


class Ladder:
    """One package's ladder; what its devices have in common is run once, for the first of them.

    Attributes:
        broken: By device, the written verdict of a run there that did not reach its end.
    """

    def __init__(
        self, path: Path, options: VerifyOptions = VerifyOptions(), *, host: Harness | None = None
    ) -> None:
        """Open the package; raises as `verify` does.

        Args:
            path: The package.
            options: What to run.
            host: This machine.
        """
        self.package = package = open_package(path)
        self.reference = _reference(package)
        build = package.manifest.plan
        self.options = options
        self.checks = plan_checks(
            self.reference.index,
            prefill_chunk=build.prefill_chunk,
            max_seq_len=build.max_seq_len,
            decode_steps=options.decode_steps,
        )
        self.questions = questions(package, _question_count(package, options))
        self.plan = self._run_plan(self.checks)
        self._host = host or HostHarness()
        self._lock = threading.Lock()
        self._exported: ExportedRun | None = None
        self._on_host: dict[str, RunResult] = {}
        self.broken: dict[str, Parity] = {}

    @property
    def host_result(self) -> RunResult:
        """What this machine brought back, after `on`."""
        return next(iter(self._on_host.values()))

    @property
    def judge(self) -> Judge:
        """Judges the program on this machine."""
        return self._verdict().judge("program on host")

    def _verdict(self) -> Verdict:
        asked = (self.options.max_ppl_ratio, self.options.limits)
        return Verdict(self.package, self.reference, self.checks, self.questions, *asked)

    def on(self, harness: Harness, on_progress: OnProgress = silent) -> VerifyResult:
        """Climb down to one device; raises as `verify` does, after writing that its rung failed."""
        folder = new_run_folder(self.package.root, harness.device.id)
        folder.write("run_plan.json", self._plan_on(harness))
        here = harness if harness.device.kind == "host" else self._host
        with self._lock:
            on_host = self._host_result(here, folder, on_progress)
            exported = self._exported_run(folder, on_progress)
        result = on_host
        if here is not harness:
            folder.write("host_result.json", on_host)
            try:
                result = self._run(harness, folder, on_progress)
            except RunFailedError as err:
                if err.code != BUSY:
                    stages = (exported, Ran(here.device, on_host), harness.device, err)
                    parity = self._verdict().broken(*stages, folder.utc)
                    folder.write("parity.json", parity)
                    self.broken[harness.device.id] = parity
                raise
        folder.write("run_result.json", result)
        ran = (exported, Ran(here.device, on_host), Ran(harness.device, result))
        parity = self._verdict().parity(*ran, folder.utc)
        folder.write("parity.json", parity)
        return VerifyResult(parity, folder.path)

    def _run(self, harness: Harness, folder: RunFolder, on_progress: OnProgress) -> RunResult:
        limits = Limits.within(self.options.timeout_s)
        return harness.run(
            self.package.root,
            self._plan_on(harness),
            log=folder.log,
            limits=limits,
            on_progress=on_progress,
        )

    def _plan_on(self, harness: Harness) -> RunPlan:
        program = self.package.program_on(harness.device.kind)
        return self.plan.model_copy(update={"program": program})

    def _host_result(
        self, harness: Harness, folder: RunFolder, on_progress: OnProgress
    ) -> RunResult:
        name = harness.device.id
        if name not in self._on_host:
            self._on_host[name] = self._run(harness, folder, on_progress)
        return self._on_host[name]

    def _exported_run(self, folder: RunFolder, on_progress: OnProgress) -> ExportedRun:
        if self._exported is None:
            plan = self._run_plan(replace(self.checks, whole=()))  # no eager rows reach that far
            options = self.options
            self._exported = run_exported(
                self.package, plan, options.exported, options.threads, on_progress
            )
        if self._exported.result is not None:
            folder.write("exported_result.json", self._exported.result)
        return self._exported

    def _run_plan(self, checks: Checks) -> RunPlan:
        build, index = self.package.manifest.plan, self.reference.index
        return RunPlan(
            program=self.package.program.relative_to(self.package.root).as_posix(),
            max_seq_len=build.max_seq_len,
            prefill_chunk=build.prefill_chunk,
            sample_ids=index.sample_ids,
            top_k=index.top_k,
            threads=self.options.threads,
            items=(*checks.items, *self.questions.items),
        )


def _question_count(package: Package, options: VerifyOptions) -> int:
    if options.questions is not None:
        return options.questions
    return _QUESTIONS if package.manifest.parameters <= _FEW_PARAMETERS else 0


def _reference(package: Package) -> Reference:
    if not package.lists("reference"):
        raise MissingError(
            "no-reference",
            f"{package.root} has no flight recorder to compare with",
            why="its manifest lists no file below reference/",
            next="build the package again with this version of mobilepack",
        )
    return Reference.read(package.reference)
