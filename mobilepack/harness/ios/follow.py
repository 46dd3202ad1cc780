"""Following an app that carries out a plan, until its result is there or it cannot come."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Limits, OnProgress, Progress
from mobilepack.harness.ios.container import FOLDER, AppContainer
from mobilepack.harness.ios.events import (
    MARK,
    Event,
    Failed,
    ItemBegins,
    Loaded,
    MemoryNote,
    Written,
    parse,
)
from mobilepack.harness.ios.faults import fault
from mobilepack.process import Child, Finished

_SIGNAL = re.compile(r"App terminated due to signal (\d+)")
_SIGKILL = 9
_LAST_READS, _PAUSE_S = 3, 0.3  # a phone's file service may miss a moment
_MEGABYTE = 1e6


class Follower:
    """Reads what the app says, on its console and in its file, within limits.

    The end is the result's file, or the app's word that it is written; the exit status of a launch
    says nothing about either.
    """

    def __init__(self, container: AppContainer, run_id: str, log: Path, limits: Limits) -> None:
        """Begin; the limits count from now."""
        self._container = container
        self._id = run_id
        self._log = log
        self._limits = limits
        self._start = time.monotonic()
        self._polled = self._start
        self._seen = 0
        self._doing = "starting"
        self._loaded = False
        self._memory = ""
        self._signal = 0
        self._written = ""
        self._offset = log.stat().st_size

    def result(self, child: Child, on_progress: OnProgress) -> bytes:
        """Return the bytes of the result.

        Raises:
            RunFailedError: The app failed, died, fell silent for too long or wrote another run's
                result.
        """
        raw: bytes | None = None
        running = True
        while raw is None:
            running = running and self._listen(child, on_progress)
            if running and not self._due():
                continue
            self._poll(on_progress)
            ended = not running or bool(self._written)
            raw = self._read(_LAST_READS if ended else 1)
            if raw is None and ended:
                raise self._lost()
        self._poll(on_progress)  # what was said since the last look, before the result
        return raw

    def _read(self, times: int) -> bytes | None:
        """Return the result's file; None if it is not there so many times."""
        for left in reversed(range(times)):
            raw = self._container.read(f"{FOLDER}/result-{self._id}.json")
            if raw is not None or not left:
                return raw
            time.sleep(_PAUSE_S)
        return None

    def _due(self) -> bool:
        """Whether it is time to ask for files."""
        if self._written:
            return True
        limit = self._limits.run_s if self._loaded else self._limits.load_s
        if time.monotonic() - self._start > min(limit, self._limits.run_s):
            crash = "" if self._container.console else self._container.post_mortem()
            if crash:
                raise self._error("app-crashed", f"{crash}, {self._doing}")
            raise self._error("run-timeout", f"stopped after {limit:.0f} s {self._doing}")
        if time.monotonic() - self._polled < self._container.poll_s:
            return False
        self._polled = time.monotonic()
        return True

    def _listen(self, child: Child, on_progress: OnProgress) -> bool:
        """Take one line of the console; whether there may be more."""
        try:
            line = child.receive(0.2)
        except TimeoutError:
            return True
        if line is None:
            return self._ended(child)
        if line.startswith(MARK):
            self._take(parse(line.removeprefix(MARK)), on_progress)
        else:
            self._keep(line)
        return True

    def _ended(self, child: Child) -> bool:
        done = child.finish(1.0)
        if self._container.console:
            self._check_launch(done)
            return False
        self._check_launch(done)
        time.sleep(min(0.2, self._container.poll_s))
        return done.returncode == 0

    def _check_launch(self, done: Finished) -> None:
        """Raise what the tool said, if it could not even start the app."""
        if self._seen == 0 and not self._signal and done.returncode != 0:
            with self._log.open("rb") as log:
                log.seek(self._offset)
                said = log.read().decode(errors="replace")
            failed = fault(replace(done, stderr=said), "cannot start the app")
            if failed.code != "tool-failed":
                raise failed

    def _keep(self, line: str) -> None:
        if found := _SIGNAL.search(line):
            self._signal = int(found[1])
        with self._log.open("a") as log:
            log.write(line + "\n")

    def _poll(self, on_progress: OnProgress) -> None:
        raw = self._container.read(f"{FOLDER}/events-{self._id}.jsonl") or b""
        for line in raw.decode(errors="replace").splitlines():
            self._take(parse(line), on_progress)

    def _take(self, event: Event | None, on_progress: OnProgress) -> None:
        if event is None or event.n < self._seen:
            return
        self._seen = event.n + 1
        match event:
            case Loaded():
                self._loaded, self._doing = True, "after the program was loaded"
            case ItemBegins():
                self._doing = f"running {event.item}" if event.item else "writing its result"
                on_progress(Progress(event.item, event.done, event.total))
            case MemoryNote():
                used, left = event.footprint_bytes, event.available_bytes
                self._memory = f"{used / _MEGABYTE:.0f} MB used, {left / _MEGABYTE:.0f} MB left"
            case Failed():
                raise self._error("runtime-failed", f"{event.why} ({self._doing})")
            case Written():
                self._written = event.run_id

    def _lost(self) -> RunFailedError:
        """Return why there is no result although the app has ended."""
        if self._written and self._written != self._id:
            why = f"it wrote run {self._written}, asked was {self._id}"
            advice = "install the app that belongs to this mobilepack: mobilepack app ios OUT"
            return self._error("run-mixed-up", why, advice)
        if self._signal == _SIGKILL:
            why = f"SIGKILL {self._doing}; {self._memory or 'it said nothing about its memory'}"
            advice = (
                "iOS kills apps that use too much memory: build a smaller recipe or a shorter "
                "--max-seq-len, and keep the increased-memory-limit entitlement"
            )
            return self._error("app-out-of-memory", why, advice)
        crash = f"signal {self._signal}" if self._signal else self._container.post_mortem()
        if crash:
            return self._error("app-crashed", f"{crash}, {self._doing}")
        why = f"it ended {self._doing} and wrote none"
        return self._error("no-result", why)

    def _error(self, code: str, why: str, advice: str = "") -> RunFailedError:
        what = "the app brought back no result"
        return RunFailedError(
            code, what, why=why, next=advice or f"read the whole log: {self._log}"
        )
