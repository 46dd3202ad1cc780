"""A phone over adb, the plan carried out inside the demo app: its process and its library."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MissingError, RunFailedError, UsageError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.app_folder import AppFolder
from mobilepack.harness.android.conditions import read_conditions
from mobilepack.harness.android.cores import ALL, checked
from mobilepack.harness.android.gates import Gate
from mobilepack.harness.android.harness import AdbHarness, with_conditions
from mobilepack.harness.android.instrument import OK, Said
from mobilepack.harness.android.native_run import Watching
from mobilepack.harness.android.store import OnPush
from mobilepack.harness.base import Device
from mobilepack.harness.native.backend import static_manifest
from mobilepack.harness.native.build import Machine
from mobilepack.process import Child

PREFIX = "app:"
APP_ID = "mobilepack.demo"
INSTRUMENTATION = "mobilepack.demo.PlanInstrumentation"
_PLAN, _RESULT = "files/run_plan.json", "files/run_result.json"
_RESULT_S = 300.0
_UNPINNED = {"cores": ALL, "cores_by": "the system's scheduler: an app is not pinned"}
_EXIT_S = 30.0
DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint8")
"""Of tensors that ExecuTorch's Java API makes for a program (`Tensor` of npm's
react-native-executorch 0.9.3); android_demo's `Dtype` has the same."""


def check_callable(package: Path) -> Path | None:
    """Refuse a program with a tensor that ExecuTorch's Java API cannot make.

    Returns:
        The manifest where the program is of the static form and called as it says, else None.

    Raises:
        UsageError: It has one, or the manifest cannot be read.
    """
    path = static_manifest(package)
    if path is None:
        return None
    odd = [
        f"{spec.name} of {method.name} is {spec.dtype}"
        for method in Manifest.read(path).methods
        for spec in (*method.inputs, *method.outputs)
        if spec.dtype not in DTYPES
    ]
    if odd:
        raise UsageError(
            "app-dtype",
            f"the app cannot run the program of {package}",
            why=f"{odd[0]}, and ExecuTorch's Java API has tensors of {', '.join(DTYPES)} alone"
            + (f" ({len(odd)} tensors are of others)" if len(odd) > 1 else ""),
            next="build the package again: mobilepack build MODEL --target qnn gives programs"
            " that an app can call",
        )
    return path


class AppHarness(AdbHarness):
    """Runs plans in the installed app (a debug build); see `Harness`."""

    def __init__(
        self,
        adb: Adb,
        *,
        purpose: str = "run",
        wait_s: float = 0.0,
        gate: Gate | None = None,
        app_id: str = APP_ID,
    ) -> None:
        """Make one; the arguments are those of `AdbHarness`, and the app's id."""
        super().__init__(adb, purpose=purpose, wait_s=wait_s, gate=gate)
        self._app = AppFolder(adb, app_id)

    @property
    def device(self) -> Device:
        """The phone, told from itself with the native runner by its prefix."""
        found = super().device
        return Device(PREFIX + found.id, f"{found.name}, in the app", found.kind)

    def keep_on(self, cores: str) -> None:
        """Leave the app's threads where the system puts them.

        Raises:
            UsageError: Cores are asked for: only an app itself, or root, may move its threads.
        """
        if checked(cores) != ALL:
            raise UsageError(
                "cores-in-app",
                f"cannot keep {self._app.app_id} on the cores {cores}",
                why="adb's user may not move an app's threads",
                next=f"leave --cores out, or take the native runner: -d {self._adb.serial}",
            )

    def _carried_out(
        self,
        package: Path,
        plan: RunPlan,
        watching: Watching,
        machine: Machine,
        on_push: OnPush,
    ) -> RunResult:
        del machine  # the app brings its library
        manifest = check_callable(package)
        self._app.check()
        program = self._app.program(package / plan.program, manifest, on_push)
        there = plan.model_copy(update={"program": program, "weight_cache": ""})
        with tempfile.TemporaryDirectory(prefix="mobilepack-adb-") as temporary:
            local = Path(temporary) / "run_plan.json"
            local.write_text(there.to_json())
            self._app.put(local, _PLAN)
        self._app.run_as(["rm", "-f", _RESULT])
        gated = self._fit(watching.on_progress, len(plan.items))
        before = gated | _UNPINNED | read_conditions(self._adb, "_before")
        self._instrument(watching)
        result = self._result(hashlib.sha256(there.to_json().encode()).hexdigest())
        return with_conditions(result, before | read_conditions(self._adb, "_after"))

    def _instrument(self, watching: Watching) -> None:
        """Let the app carry the plan out, within the limits.

        Raises:
            MissingError: The app has no such entry.
            RunFailedError: It crashed, refused the plan, or ran past a limit.
        """
        said = Said()
        words = ("am", "instrument", "-w", "-r", f"{self._app.app_id}/{INSTRUMENTATION}")
        deadline = time.monotonic() + watching.limits.run_s
        with self._adb.start(words, watching.log) as child, watching.log.open("a") as log:
            try:
                while (line := child.receive(deadline - time.monotonic())) is not None:
                    log.write(line + "\n")
                    if (progress := said.read(line)) is not None:
                        watching.on_progress(progress)
            except TimeoutError as err:
                child.kill()
                raise self._ended("run-timeout", "its time is up", watching) from err
            finally:
                if said.code != OK:
                    self._adb.ask(["am", "force-stop", self._app.app_id])
            self._judge(said, child, watching)

    def _judge(self, said: Said, child: Child, watching: Watching) -> None:
        if said.code == OK and "error" not in said.results:
            return
        if "Unable to find instrumentation" in said.error:
            raise MissingError(
                "app-without-entry",
                f"{self._app.app_id} on {self._adb.serial} cannot carry out plans",
                why=said.error,
                next="install the project that `mobilepack app android OUT` writes",
            )
        if "error" in said.results:
            raise self._ended("runtime-failed", said.results["error"], watching)
        why = said.results.get("longMsg") or said.results.get("shortMsg") or said.error
        raise self._ended("runtime-died", why or child.finish(_EXIT_S).ending, watching)

    def _ended(self, code: str, why: str, watching: Watching) -> RunFailedError:
        return RunFailedError(
            code,
            f"{self._app.app_id} did not carry out the plan",
            why=why,
            next=f"read the whole log: {watching.log}, and adb logcat",
        )

    def _result(self, plan_sha256: str) -> RunResult:
        done = self._app.run_as(["cat", _RESULT], timeout_s=_RESULT_S)
        if done.returncode != 0:
            raise self._adb.failed("read the app's result", done)
        result = RunResult.parse(done.stdout, _RESULT)
        if result.plan_sha256 != plan_sha256:
            raise RunFailedError(
                "run-mixed-up",
                f"the result from {self._app.app_id} belongs to another plan",
                why=f"it names plan {result.plan_sha256[:16]}",
                next="run it again; if it stays so, report it with log.txt",
            )
        return result
