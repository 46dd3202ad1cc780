"""One plan by the native runner on a phone: started, watched, its result fetched."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MobilepackError, RunFailedError
from mobilepack.harness.android.store import RESULT, ROOT, Store
from mobilepack.harness.base import Limits, OnProgress
from mobilepack.harness.journal import Journal
from mobilepack.harness.native.build import LOADER, RUNNER
from mobilepack.harness.watch import Watch

_START = 'echo $$ > "$1/pid"; cd "$1"; shift; exec "$@"'
_RESULT_S = 300.0


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How a runner is started so that something else watches it.

    Attributes:
        words: Put before the runner's command; `{run}` is the folder of the run on the device.
        file: Name in that folder of what the watcher writes.
        add: Puts what the pulled file says into the result.
    """

    words: tuple[str, ...]
    file: str
    add: Callable[[RunResult, RunPlan, Path], RunResult]


@dataclass(frozen=True, slots=True)
class Watching:
    """What follows a run: its log, its limits, who hears of progress."""

    log: Path
    limits: Limits
    on_progress: OnProgress


@dataclass(frozen=True, slots=True)
class NativeRun:
    """How plans are run on one phone.

    Attributes:
        runner: Folder of the runner on the phone.
        manifest: On the phone, of a program that is called as it says; empty for another.
        wrap: Something that watches the runner.
        pin: Put before all of it; keeps it on some cores.
    """

    store: Store
    runner: str
    manifest: str = ""
    wrap: Wrapping | None = None
    pin: tuple[str, ...] = ()

    def run(self, plan: RunPlan, folder: str, watching: Watching, journal: Journal) -> RunResult:
        """Run a plan in a folder on the phone; what finishes is in the journal at once.

        Raises:
            RunFailedError: It died, hung, was refused, or the phone is gone.
        """
        adb = self.store.adb
        with tempfile.TemporaryDirectory(prefix="mobilepack-adb-") as temporary:
            here = Path(temporary)
            local = here / "run_plan.json"
            local.write_text(plan.to_json())
            adb.push(local, f"{folder}/run_plan.json", timeout_s=_RESULT_S)
            journal.begin(folder, _sha256(plan))
            with adb.start(self._words(folder), watching.log) as child:
                watch = Watch(child, watching.log, watching.limits)
                watch.run_to_end(watching.on_progress, journal.add)
            result = self._fetch(folder, here, _sha256(plan))
            if self.wrap is None:
                return result
            watched = here / self.wrap.file
            adb.pull(f"{folder}/{self.wrap.file}", watched, timeout_s=_RESULT_S)
            return self.wrap.add(result, plan, watched)

    def left_behind(self, journal: Journal) -> RunResult | None:
        """Return the result that the last attempt wrote and nobody fetched, None without one.

        Raises:
            RunFailedError: The phone is gone.
        """
        attempt = journal.attempt
        if not attempt.folder or not self.store.has_file(f"{attempt.folder}/{RESULT}"):
            return None
        with tempfile.TemporaryDirectory(prefix="mobilepack-adb-") as temporary:
            try:
                return self._fetch(attempt.folder, Path(temporary), attempt.plan_sha256)
            except MobilepackError as err:
                if err.code in ("run-mixed-up", "invalid-file"):
                    return None
                raise

    def _words(self, folder: str) -> tuple[str, ...]:
        prefix = tuple(w.format(run=folder) for w in self.wrap.words) if self.wrap else ()
        command = (*self.pin, *prefix, *runner_command(self.runner), f"{ROOT}/objects")
        manifest = (self.manifest,) if self.manifest else ()
        return ("sh", "-c", _START, "sh", folder, *command, *_files(folder), *manifest)

    def _fetch(self, folder: str, here: Path, plan_sha256: str) -> RunResult:
        pulled = here / RESULT
        self.store.adb.pull(f"{folder}/{RESULT}", pulled, timeout_s=_RESULT_S)
        result = RunResult.read(pulled)
        if result.plan_sha256 != plan_sha256:
            raise RunFailedError(
                "run-mixed-up",
                f"the result from {self.store.adb.serial} belongs to another plan",
                why=f"it names plan {result.plan_sha256[:16]}",
                next="run it again; if it stays so, report it with log.txt",
            )
        return result


def runner_command(runner: str) -> tuple[str, ...]:
    """Return how a runner starts on a device, whose own libraries it does not use."""
    libraries = f"{runner}/{Path(LOADER).parent}:{runner}/lib"
    return (f"{runner}/{LOADER}", "--library-path", libraries, f"{runner}/{RUNNER}")


def _files(folder: str) -> tuple[str, str]:
    return f"{folder}/run_plan.json", f"{folder}/{RESULT}"


def _sha256(plan: RunPlan) -> str:
    return hashlib.sha256(plan.to_json().encode()).hexdigest()
