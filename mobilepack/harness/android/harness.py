"""A phone over adb: the native runner is pushed, run and watched; its result comes back."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.conditions import read_conditions
from mobilepack.harness.android.cores import ALL, checked, pin
from mobilepack.harness.android.facts import DeviceFacts, read_facts
from mobilepack.harness.android.gates import Gate, wait_until_fit
from mobilepack.harness.android.match import check_match, soc_of
from mobilepack.harness.android.native_run import NativeRun, Watching, Wrapping
from mobilepack.harness.android.presence import knowing
from mobilepack.harness.android.store import OnPush, Store
from mobilepack.harness.base import (
    NO_HURRY,
    Device,
    DeviceKind,
    Limits,
    OnProgress,
    Progress,
    silent,
)
from mobilepack.harness.journal import Journal
from mobilepack.harness.lease import leased
from mobilepack.harness.native.backend import check_backend, static_manifest
from mobilepack.harness.native.build import Machine, built_runner


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
        self._cores = ALL
        self._facts: DeviceFacts | None = None

    def keep_on(self, cores: str) -> None:
        """Keep every run on some cores.

        Raises:
            UsageError: They are not `all`, `big` or a list; see `pin`.
        """
        self._cores = checked(cores)

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
        watching = Watching(log, limits, on_progress)

        def pushing(name: str, size: int) -> None:
            on_progress(Progress(f"push {name} ({size / 1e6:.1f} MB)", 0, len(plan.items)))

        with leased(self._adb.serial, self._purpose, self._wait_s):
            machine = check_match(self.facts, soc_of(package))
            with knowing(self._adb):
                result = self._carried_out(package, plan, watching, machine, pushing)
        return self._named(result, plan)

    def _carried_out(
        self,
        package: Path,
        plan: RunPlan,
        watching: Watching,
        machine: Machine,
        on_push: OnPush,
    ) -> RunResult:
        """Bring everything to the phone and carry the plan out there."""
        check_backend(package)
        pinned = pin(self._adb, self._cores)
        store = Store(self._adb, on_push)
        runner = store.runner(built_runner(machine))
        manifest = static_manifest(package)
        described = store.manifest(manifest) if manifest else ""
        running = NativeRun(store, runner, described, self._wrap, pinned.words)
        program = store.program(package / plan.program)
        there = plan.model_copy(update={"program": program, "weight_cache": ""})
        result = self._whole(running, there, watching)
        return with_conditions(result, pinned.said)

    def _whole(self, running: NativeRun, plan: RunPlan, watching: Watching) -> RunResult:
        """Run what an earlier attempt has not brought yet, and return the result of all of it."""
        how = (running.runner, running.manifest, *running.pin)
        journal = Journal(self._adb.serial, plan.to_json(), *how)
        if self._wrap:  # counts of instructions come at the end, for all items or for none
            journal.forget()
        result = running.left_behind(journal)
        running.store.sweep()
        if result is not None:
            result = with_conditions(result, {"resumed": "the result lay on the phone"})
        else:
            missing = journal.missing(plan) or plan.model_copy(update={"items": plan.items[-1:]})
            result = self._run(running, missing, watching, journal)
        whole = journal.whole(plan, result)
        journal.forget()
        return whole

    def _run(
        self, running: NativeRun, plan: RunPlan, watching: Watching, journal: Journal
    ) -> RunResult:
        with running.store.run_folder() as folder:
            gated = self._fit(watching.on_progress, len(plan.items))
            before = gated | read_conditions(self._adb, "_before")
            result = running.run(plan, folder, watching, journal)
            return with_conditions(result, before | read_conditions(self._adb, "_after"))

    def _fit(self, on_progress: OnProgress, total: int) -> dict[str, str]:
        if self._gate is None:
            return {}
        tell = functools.partial(Progress, done=0, total=total)
        return wait_until_fit(self._adb, self._gate, lambda text: on_progress(tell(text)))

    def _named(self, result: RunResult, plan: RunPlan) -> RunResult:
        """Return the result as the answer to the caller's plan, with what the phone is."""
        facts = self.facts
        environment = result.environment.model_copy(
            update={
                "kind": self.device.kind,
                "representative": not facts.virtual,
                "name": f"{facts.model or 'Android phone'} ({self._adb.serial})",
                "cpu": facts.soc or result.environment.cpu,
                "runtime": result.environment.runtime | {"android": facts.android or "unknown"},
            }
        )
        digest = hashlib.sha256(plan.to_json().encode()).hexdigest()
        return result.model_copy(update={"plan_sha256": digest, "environment": environment})


def with_conditions(result: RunResult, conditions: dict[str, str]) -> RunResult:
    """Return a result with more conditions."""
    all_of_them = result.environment.conditions | conditions
    environment = result.environment.model_copy(update={"conditions": all_of_them})
    return result.model_copy(update={"environment": environment})
