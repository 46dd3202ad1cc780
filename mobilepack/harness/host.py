"""This machine: plans run in a child process, so that a crash in the runtime is a report."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mobilepack.backends.qnn.field_errors import cause_of
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import NO_HURRY, Device, Limits, OnProgress, Progress, silent
from mobilepack.harness.talk import (
    CANCEL,
    End,
    Event,
    Failed,
    ItemBegins,
    Loaded,
    Request,
    Score,
    Scores,
    Token,
    parse_event,
)
from mobilepack.process import Child, Finished, child_env

CHILD = (sys.executable, "-P", "-m", "mobilepack.harness.host_child")
_LAST_WORDS = 4
_FRAMES = ("  File ", "    ", "Current thread", "Thread 0x", "Extension modules:")
_CHATTER = ("[cpuinfo_utils.cpp", "[threadpool.cpp")  # at every start, executorch 1.5.1
_NOISE = _FRAMES + _CHATTER
_EXIT_S = 30.0


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
                watch = _Watch(child, log, limits)
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
                loaded = _Watch(self._child, log, limits).loaded()
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
        watch = _Watch(self._child, self._log, self._limits)
        self._child.send(request.model_dump_json())
        ended = False
        try:
            for event in watch.events():
                if isinstance(event, Token | End):
                    ended = isinstance(event, End)
                    yield event
                if ended:
                    return
            raise watch.died(self._child.finish(_EXIT_S))
        except (GeneratorExit, KeyboardInterrupt):
            if not ended:
                self._cancel(watch)
            raise

    def score(self, asked: Score) -> Scores:
        """Return how likely the continuations of a context are.

        Raises:
            RunFailedError: As `generate`.
        """
        watch = _Watch(self._child, self._log, self._limits)
        self._child.send(asked.model_dump_json())
        for event in watch.events():
            if isinstance(event, Scores):
                return event
        raise watch.died(self._child.finish(_EXIT_S))

    def _cancel(self, watch: _Watch) -> None:
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


class _Watch:
    """Reads a child's events within limits and turns every bad end into a `RunFailedError`."""

    def __init__(self, child: Child, log: Path, limits: Limits) -> None:
        self._child = child
        self._log = log
        self._limits = limits
        self._start = time.monotonic()
        self._doing = "loading the program"

    def run_to_end(self, on_progress: OnProgress) -> None:
        self.loaded()
        for event in self.events():
            if isinstance(event, ItemBegins):
                self._doing = f"running {event.item}" if event.item else "writing its results"
                on_progress(Progress(event.item, event.done, event.total))
        done = self._child.finish(_EXIT_S)
        if done.returncode != 0 or done.timed_out:
            raise self.died(done)

    def loaded(self) -> Loaded:
        event = self._next(self._limits.load_s)
        if not isinstance(event, Loaded):
            raise self.died(self._child.finish(_EXIT_S))
        self._doing = "running"
        return event

    def events(self) -> Iterator[Event]:
        """Yield events until the child's output ends."""
        while (event := self._next(self._limits.run_s)) is not None:
            yield event

    def _next(self, limit_s: float) -> Event | None:
        try:
            line = self._child.receive(self._start + limit_s - time.monotonic())
            event = None if line is None else parse_event(line)
        except TimeoutError as err:
            raise self.died(self._child.kill()) from err
        except ValueError as err:
            self._child.kill()
            what = "the child process said what it must not"
            raise self.error("run-garbled", what, str(err)) from err
        if isinstance(event, Failed):
            what = f"the runtime failed while {self._doing}"
            raise self.error("runtime-failed", what, self._with_log(event.why))
        return event

    def died(self, done: Finished) -> RunFailedError:
        code = "run-timeout" if done.timed_out else "runtime-died"
        what = f"the process that runs the program ended while {self._doing}"
        return self.error(code, what, self._with_log(done.ending))

    def error(self, code: str, what: str, why: str) -> RunFailedError:
        return RunFailedError(code, what, why=why, next=f"read the whole log: {self._log}")

    def _with_log(self, why: str) -> str:
        cause = cause_of(self._log.read_text(errors="replace")) if self._log.is_file() else None
        if cause is not None:
            return f"{why}: {cause.cause} ({cause.quote}); {cause.remedy}"
        words = last_words(self._log)
        return f"{why}; its last words: {words}" if words else why


def last_words(log: Path) -> str:
    """Return the last lines of a log that say something: no stack frames, no start-up chatter."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip() and not line.startswith(_NOISE)]
    return " | ".join(said[-_LAST_WORDS:])


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
