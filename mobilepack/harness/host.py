"""This machine: plans run in a child process, so that a crash in the runtime is a report."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.base import NO_HURRY, Device, Limits, OnProgress, silent
from mobilepack.harness.talk import (
    CANCEL,
    End,
    Request,
    Score,
    Scores,
    Token,
)
from mobilepack.harness.watch import EXIT_S, Watch
from mobilepack.process import Child, child_env

CHILD = (sys.executable, "-P", "-m", "mobilepack.harness.host_child")


def discover() -> tuple[Device, ...]:
    """Return the one host."""
    return (Device("host", f"{platform.system()} {platform.machine()}", "host"),)


class HostHarness:
    """Runs plans on this machine."""

    def __init__(self, child: tuple[str, ...] = CHILD) -> None:
        """Make one.

        Args:
            child: Command that speaks `talk`; tests bring one that dies.
        """
        self._child = child

    @property
    def device(self) -> Device:
        """The host."""
        return discover()[0]

    def run(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        on_progress: OnProgress = silent,
    ) -> RunResult:
        """Run a plan in a child process; see `Harness.run`."""
        with tempfile.TemporaryDirectory(prefix="mobilepack-run-") as folder:
            plan_path, result_path = Path(folder) / "run_plan.json", Path(folder) / "result.json"
            plan_path.write_text(plan.to_json())
            argv = (*self._child, "run", str(package.resolve()), str(plan_path), str(result_path))
            with Child(argv, log=log, env=environment(package)) as child:
                watch = Watch(child, log, limits)
                watch.run_to_end(on_progress)
            if not result_path.is_file():
                raise watch.error("no-results", "the run wrote no results", "it ended without them")
            return RunResult.read(result_path)


class HostSession:
    """A loaded program that answers generation requests; use it in a `with`.

    Attributes:
        load_ns: What loading the program took.
        threads: Threads of the runtime's pool.
    """

    def __init__(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        child: tuple[str, ...] = CHILD,
    ) -> None:
        """Start the child and load the program.

        Args:
            plan: Names program, method, chunk and threads; its items are not run.
            limits: `run_s` bounds each answer.

        Raises:
            RunFailedError: As `Harness.run`.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-chat-") as folder:
            plan_path = Path(folder) / "run_plan.json"
            plan_path.write_text(plan.to_json())
            argv = (*child, "serve", str(package.resolve()), str(plan_path))
            self._child = Child(argv, log=log, env=environment(package))
            try:
                loaded = Watch(self._child, log, limits).loaded()
            except BaseException:
                self.close()
                raise
        self._log, self._limits = log, limits
        self.load_ns, self.threads = loaded.load_ns, loaded.threads

    def generate(self, request: Request) -> Generator[Token | End, None, None]:
        """Yield the new tokens, then the end; closing the iterator early cancels.

        Raises:
            RunFailedError: The runtime failed, died or ran past the limit.
        """
        watch = Watch(self._child, self._log, self._limits)
        self._child.send(request.model_dump_json())
        ended = False
        try:
            for event in watch.events():
                if isinstance(event, Token | End):
                    ended = isinstance(event, End)
                    yield event
                if ended:
                    return
            raise watch.died(self._child.finish(EXIT_S))
        except (GeneratorExit, KeyboardInterrupt):
            if not ended:
                self._cancel(watch)
            raise

    def score(self, asked: Score) -> Scores:
        """Return how likely the continuations of a context are.

        Raises:
            RunFailedError: As `generate`.
        """
        watch = Watch(self._child, self._log, self._limits)
        self._child.send(asked.model_dump_json())
        for event in watch.events():
            if isinstance(event, Scores):
                return event
        raise watch.died(self._child.finish(EXIT_S))

    def _cancel(self, watch: Watch) -> None:
        self._child.send(CANCEL)
        for event in watch.events():
            if isinstance(event, End):
                return

    def close(self) -> None:
        """End the child."""
        self._child.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def environment(package: Path) -> Mapping[str, str]:
    """Return the environment of the child that runs a package's program.

    Raises:
        MissingError: The program needs Qualcomm's libraries, and they are not here.
        RunFailedError: They are older than those that compiled it.
    """
    path = package / MANIFEST
    manifest = Manifest.read(path) if path.is_file() else None
    if manifest is None or manifest.plan.backend != "qnn":
        return child_env()
    from mobilepack.backends.qnn.probe import usable_sdk
    from mobilepack.backends.qnn.versions import check_runtime

    sdk = usable_sdk()
    check_runtime(manifest.runtime_version, sdk.version, "this machine")
    return sdk.environment()
