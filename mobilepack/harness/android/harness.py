"""A phone over adb: the native runner is pushed, run and watched; its result comes back."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.conditions import read_conditions
from mobilepack.harness.android.facts import DeviceFacts, read_facts
from mobilepack.harness.android.gates import Gate, wait_until_fit
from mobilepack.harness.android.match import check_match, soc_of
from mobilepack.harness.android.store import ROOT, Store
from mobilepack.harness.base import (
    NO_HURRY,
    Device,
    DeviceKind,
    Limits,
    OnProgress,
    Progress,
    silent,
)
from mobilepack.harness.lease import leased
from mobilepack.harness.native.build import LOADER, RUNNER, built_runner
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


class AdbHarness:
    """Runs plans on one phone; see `Harness`."""

    def __init__(
        self,
        adb: Adb,
        *,
        purpose: str = "run",
        wait_s: float = 0.0,
        wrap: Wrapping | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Make one.

        Args:
            adb: With the device's serial.
            purpose: What others are told who want the device.
            wait_s: How long to wait for another user of it.
            wrap: Something that watches the runner.
            gate: What the phone must be like before each run.
        """
        self._adb = adb
        self._purpose = purpose
        self._wait_s = wait_s
        self._wrap = wrap
        self._gate = gate
        self._facts: DeviceFacts | None = None

    @property
    def facts(self) -> DeviceFacts:
        """What the phone says about itself, asked once."""
        if self._facts is None:
            self._facts = read_facts(self._adb)
        return self._facts

    @property
    def device(self) -> Device:
        """The phone."""
        facts = self.facts
        kind: DeviceKind = "emulator" if facts.virtual else "device"
        return Device(self._adb.serial, facts.model or "Android phone", kind)

    def run(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        on_progress: OnProgress = silent,
    ) -> RunResult:
        """Run a plan on the phone; see `Harness.run`.

        Raises:
            MissingError: The phone has another ABI or SoC than the program is for.
            RunFailedError: Also when the phone is held by somebody else, gone or full.
        """
        with leased(self._adb.serial, self._purpose, self._wait_s):
            machine = check_match(self.facts, soc_of(package))

            def pushing(name: str, size: int) -> None:
                on_progress(Progress(f"push {name} ({size / 1e6:.1f} MB)", 0, len(plan.items)))

            store = Store(self._adb, pushing)
            runner = store.runner(built_runner(machine))
            there = plan.model_copy(
                update={"program": store.program(package / plan.program), "weight_cache": ""}
            )
            with store.run_folder() as folder, self._knowing_the_device():
                gated = self._fit(on_progress, len(plan.items))
                before = gated | read_conditions(self._adb, "_before")
                result = self._run(there, folder, runner, log, limits, on_progress)
                conditions = before | read_conditions(self._adb, "_after")
        return self._named(result, plan, conditions)

    def _fit(self, on_progress: OnProgress, total: int) -> dict[str, str]:
        if self._gate is None:
            return {}
        tell = functools.partial(Progress, done=0, total=total)
        return wait_until_fit(self._adb, self._gate, lambda text: on_progress(tell(text)))

    def _run(
        self,
        plan: RunPlan,
        folder: str,
        runner: str,
        log: Path,
        limits: Limits,
        on_progress: OnProgress,
    ) -> RunResult:
        with tempfile.TemporaryDirectory(prefix="mobilepack-adb-") as temporary:
            here = Path(temporary)
            local = here / "run_plan.json"
            local.write_text(plan.to_json())
            self._adb.push(local, f"{folder}/run_plan.json", timeout_s=_RESULT_S)
            prefix = tuple(w.format(run=folder) for w in self._wrap.words) if self._wrap else ()
            command = (*prefix, *runner_command(runner), f"{ROOT}/objects")
            files = (f"{folder}/run_plan.json", f"{folder}/run_result.json")
            words = ("sh", "-c", _START, "sh", folder, *command, *files)
            with self._adb.start(words, log) as child:
                Watch(child, log, limits).run_to_end(on_progress)
            pulled = here / "run_result.json"
            self._adb.pull(files[1], pulled, timeout_s=_RESULT_S)
            result = RunResult.read(pulled)
            self._check_plan(result, local)
            if self._wrap is None:
                return result
            watched = here / self._wrap.file
            self._adb.pull(f"{folder}/{self._wrap.file}", watched, timeout_s=_RESULT_S)
            return self._wrap.add(result, plan, watched)

    def _check_plan(self, result: RunResult, plan: Path) -> None:
        if result.plan_sha256 != hashlib.sha256(plan.read_bytes()).hexdigest():
            raise RunFailedError(
                "run-mixed-up",
                f"the result from {self._adb.serial} belongs to another plan",
                why=f"it names plan {result.plan_sha256[:16]}",
                next="run it again; if it stays so, report it with log.txt",
            )

    def _named(self, result: RunResult, plan: RunPlan, conditions: dict[str, str]) -> RunResult:
        """Return the result as the answer to the caller's plan, with what the phone is."""
        facts = self.facts
        environment = result.environment.model_copy(
            update={
                "kind": self.device.kind,
                "representative": not facts.virtual,
                "name": f"{facts.model or 'Android phone'} ({self._adb.serial})",
                "cpu": facts.soc or result.environment.cpu,
                "runtime": result.environment.runtime | {"android": facts.android or "unknown"},
                "conditions": result.environment.conditions | conditions,
            }
        )
        digest = hashlib.sha256(plan.to_json().encode()).hexdigest()
        return result.model_copy(update={"plan_sha256": digest, "environment": environment})

    @contextlib.contextmanager
    def _knowing_the_device(self) -> Iterator[None]:
        """Name the phone as the cause of a failed run if it is no longer there."""
        try:
            yield
        except RunFailedError as err:
            if err.code not in ("runtime-died", "run-garbled", "no-results"):
                raise
            state = self._state()
            if state == "device":
                raise
            raise RunFailedError(
                "device-gone",
                f"{self._adb.serial} went away in the middle of a run",
                why=f"adb says it is {state}; {err.why}",
                next="check cable, network and battery, then run it again",
            ) from err

    def _state(self) -> str:
        with contextlib.suppress(RunFailedError):
            for listed in self._adb.devices():
                if listed.serial == self._adb.serial:
                    return listed.state
        return "absent"


def runner_command(runner: str) -> tuple[str, ...]:
    """Return how a runner starts on a device, whose own libraries it does not use."""
    libraries = f"{runner}/{Path(LOADER).parent}:{runner}/lib"
    return (f"{runner}/{LOADER}", "--library-path", libraries, f"{runner}/{RUNNER}")
