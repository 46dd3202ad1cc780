"""The native runner on this machine: the C++ that phones run, where it can be debugged."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import get_args

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MissingError
from mobilepack.harness.base import NO_HURRY, Device, Limits, OnProgress, silent
from mobilepack.harness.native.backend import check_backend
from mobilepack.harness.native.build import RUNNER, Machine, built_runner
from mobilepack.harness.watch import Watch
from mobilepack.process import Child


class NativeHarness:
    """Runs plans with the native runner in a child process."""

    @property
    def device(self) -> Device:
        """This machine, by another name than Python's own harness."""
        return Device("native", f"{platform.system()} {platform.machine()}, native runner", "host")

    def run(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        on_progress: OnProgress = silent,
    ) -> RunResult:
        """Run a plan; see `Harness.run`.

        Raises:
            MissingError: There is no runner for this machine, or the package is not XNNPACK's.
        """
        check_backend(package)
        runner = built_runner(_this_machine()) / RUNNER
        with tempfile.TemporaryDirectory(prefix="mobilepack-run-") as folder:
            plan_path, result_path = Path(folder) / "run_plan.json", Path(folder) / "result.json"
            plan_path.write_text(plan.to_json())
            argv = (str(runner), str(package.resolve()), str(plan_path), str(result_path))
            with Child(argv, log=log) as child:
                Watch(child, log, limits).run_to_end(on_progress)
            result = RunResult.read(result_path)
        environment = result.environment.model_copy(update={"kind": "host"})
        return result.model_copy(update={"environment": environment})


def _this_machine() -> Machine:
    machines: tuple[Machine, ...] = get_args(Machine)
    for machine in machines:
        if machine == platform.machine() and platform.system() == "Linux":
            return machine
    raise MissingError(
        "no-native-runner",
        "there is no native runner for this machine",
        why=f"it is built for Linux on {' and '.join(machines)}",
        next="use the host harness: leave -d out",
    )
