"""Following a child that carries out a plan: its events, its limits, its bad ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mobilepack.backends.qnn.field_errors import cause_of
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Limits, OnProgress, Progress
from mobilepack.harness.talk import Event, Failed, ItemBegins, ItemFinished, Loaded, parse_event
from mobilepack.process import Child, Finished

EXIT_S = 30.0
"""How long a child that has said everything may take to end."""

_MEMORY = (
    "it is mostly the system that kills, for want of memory: close other programs, or build with a"
    " smaller --max-seq-len; "
)
_LAST_WORDS = 4
_FRAMES = ("  File ", "    ", "Current thread", "Thread 0x", "Extension modules:")
_CHATTER = ("cpuinfo_utils.cpp", "threadpool.cpp")  # at every start, executorch 1.5.1


def _forget(finished: ItemFinished) -> None:
    """Leave it to the result."""


class Watch:
    """Reads a child's events within limits and turns every bad end into a `RunFailedError`."""

    def __init__(self, child: Child, log: Path, limits: Limits) -> None:
        """Begin to watch; the limits count from now."""
        self._child = child
        self._log = log
        self._limits = limits
        self._start = time.monotonic()
        self._doing = "loading the program"

    def run_to_end(
        self, on_progress: OnProgress, on_finished: Callable[[ItemFinished], None] = _forget
    ) -> None:
        """Follow a run until the child has ended well.

        Args:
            on_progress: Hears what begins.
            on_finished: Gets what an item brought, from runners that say so.
        """
        self.loaded()
        for event in self.events():
            if isinstance(event, ItemFinished):
                on_finished(event)
            if isinstance(event, ItemBegins):
                self._doing = f"running {event.item}" if event.item else "writing its results"
                on_progress(Progress(event.item, event.done, event.total))
        done = self._child.finish(EXIT_S)
        if done.returncode != 0 or done.timed_out:
            raise self.died(done)

    def loaded(self) -> Loaded:
        """Return the event that the program is ready, which comes first."""
        event = self._next(self._limits.load_s)
        if not isinstance(event, Loaded):
            raise self.died(self._child.finish(EXIT_S))
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
        """Return the error for a child that ended too early."""
        code = "run-timeout" if done.timed_out else "runtime-died"
        what = f"the process that runs the program ended while {self._doing}"
        advice = _MEMORY if not done.timed_out and "SIGKILL" in done.ending else ""
        return self.error(code, what, self._with_log(done.ending), advice)

    def error(self, code: str, what: str, why: str, advice: str = "") -> RunFailedError:
        """Return an error that names the log."""
        return RunFailedError(code, what, why=why, next=f"{advice}read the whole log: {self._log}")

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
    said = [line.strip() for line in lines if line.strip() and not _is_noise(line)]
    return " | ".join(said[-_LAST_WORDS:])


def _is_noise(line: str) -> bool:
    return line.startswith(_FRAMES) or any(source in line for source in _CHATTER)
