"""Run a command and say what it cost: time, processor time and memory of its whole tree."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import benchmarks

REPOSITORY = Path(benchmarks.__file__).resolve().parent.parent
_SAMPLE_S = 0.05
_TAIL_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold the cost and the output of a finished command.

    Attributes:
        returncode: Exit status; negative is the signal that ended the command.
        cpu_user_s: User time of the command and of all children it waited for.
        cpu_system_s: System time of the same.
        peak_rss_bytes: Largest resident set of any one process of the tree, as the
            kernel counted it (`ru_maxrss`).
        peak_anonymous_bytes: Largest sum of anonymous memory over the tree, sampled
            every 50 ms; None where it was not asked for (sampling costs time).
        other_cpu_share: Processor time other processes took, as a share of the
            machine's capacity while the command ran; the larger, the less to trust.
    """

    returncode: int
    timed_out: bool
    wall_s: float
    cpu_user_s: float
    cpu_system_s: float
    peak_rss_bytes: int
    peak_anonymous_bytes: int | None
    other_cpu_share: float
    stdout: str
    stderr: str

    @property
    def cpu_s(self) -> float:
        """User and system time together."""
        return self.cpu_user_s + self.cpu_system_s

    def explain_failure(self) -> str:
        """Say in one line why the command did not succeed."""
        reason = "ran past its time limit" if self.timed_out else f"exit status {self.returncode}"
        told = self.stderr.strip() or self.stdout.strip()  # with --json errors go to stdout
        return f"{reason}: {told[-_TAIL_CHARACTERS:]}"


def run_measured(
    command: Sequence[str],
    *,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
    sample_memory: bool = False,
    priority: int = 0,
) -> Measured:
    """Run a command to its end, or kill its process group at the limit.

    Args:
        command: Program and arguments.
        limit_s: Longest run.
        environment: Added to this process's own variables. The repository is on the
            child's import path, so that peers' scripts find the `benchmarks` package.
        sample_memory: Watch the anonymous memory of the whole tree.
        priority: Nice value of the command, from 19 (yields) to -20 (needs root).
    """
    merged = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        busy, started = busy_cpu_s(), time.perf_counter()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=merged,
            start_new_session=True,
        )
        _set_priority(process.pid, priority)
        with (
            _MemorySampler(process.pid, sample_memory) as sampler,
            _Limit(process.pid, limit_s) as limit,
        ):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - started
        own = usage.ru_utime + usage.ru_stime
        others = max(0.0, busy_cpu_s() - busy - own) / (wall_s * (os.cpu_count() or 1))
        return Measured(
            returncode=process.returncode,
            timed_out=limit.expired,
            wall_s=wall_s,
            cpu_user_s=usage.ru_utime,
            cpu_system_s=usage.ru_stime,
            peak_rss_bytes=_peak_rss_bytes(usage),
            peak_anonymous_bytes=sampler.peak_bytes if sample_memory else None,
            other_cpu_share=others,
            stdout=_text(out),
            stderr=_text(err),
        )


def _set_priority(group: int, priority: int) -> None:
    """Set the nice value of a new session, and of its scheduling group where there is one.

    With autogroups a nice value only ranks processes within a session: sched(7).
    """
    if priority == 0:
        return
    os.setpriority(os.PRIO_PGRP, group, priority)
    autogroup = Path(f"/proc/{group}/autogroup")
    if autogroup.exists():
        autogroup.write_text(str(priority), encoding="ascii")


def busy_cpu_s() -> float:
    """Return the seconds all processors were busy since boot, stolen time included.

    Source: proc(5), /proc/stat, first line: user nice system idle iowait irq softirq
    steal, in clock ticks.
    """
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    ticks = [int(value) for value in fields]
    idle = ticks[3] + ticks[4]
    return float(sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


def tree_anonymous_bytes(root: int) -> int:
    """Sum the anonymous resident memory of a process and all its descendants."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        folder = Path(f"/proc/{pid}")
        try:
            total += _anonymous_bytes(folder / "status")
            for task in (folder / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return total


def _anonymous_bytes(status: Path) -> int:
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _peak_rss_bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024  # Linux counts in kB: getrusage(2)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


class _MemorySampler:
    """Watch the anonymous memory of a process tree from a thread."""

    def __init__(self, pid: int, enabled: bool) -> None:
        self.peak_bytes = 0
        self._enabled = enabled
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _MemorySampler:
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.set()
        if self._enabled:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, tree_anonymous_bytes(self._pid))


class _Limit:
    """Kill a process group when its time is up."""

    def __init__(self, group: int, limit_s: float) -> None:
        self.expired = False
        self._group = group
        self._timer = threading.Timer(limit_s, self._kill)

    def __enter__(self) -> _Limit:
        self._timer.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def _kill(self) -> None:
        self.expired = True
        os.killpg(self._group, signal.SIGKILL)
