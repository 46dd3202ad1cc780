"""Child processes: the only caller of subprocess.

Every child leads a process group of its own, which is killed as a whole when its time is up or
when we are interrupted; what it cost comes from the kernel (`wait4`), not from polling.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from mobilepack.errors import MissingError

_SHELL_SIGNAL = 128
_GRACE_S = 1.0
"""How long pipes may stay open after the child has ended (a background process holds them)."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended and what it cost.

    Attributes:
        returncode: Exit status, or minus the number of the signal that killed it.
        timed_out: We killed it because its time was up.
        wall_s: Seconds of a monotonic clock from start to end.
        cpu_s: User and system seconds of the child and of its children it waited for.
        peak_rss_bytes: Highest resident memory of the child, or of its largest waited-for child.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    timed_out: bool
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int

    @property
    def ending(self) -> str:
        """How it ended, in words: `exit status 3`, `killed by SIGSEGV`, `stopped after 10 s`."""
        if self.timed_out:
            return f"stopped after {self.wall_s:.0f} s"
        if self.returncode < 0:
            return f"killed by {signal_name(-self.returncode)}"
        if self.returncode > _SHELL_SIGNAL:  # a shell's way to say so, adb's too
            return f"exit status {self.returncode} ({signal_name(self.returncode - _SHELL_SIGNAL)})"
        return f"exit status {self.returncode}"


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11, `signal 63` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def child_env() -> dict[str, str]:
    """Return our environment with what a Python child of ours needs.

    One OpenMP thread: the delegate has its own pool, and a second one spinning beside it costs 20 %
    of decode (measured, SmolLM2-135M on 2 cores). A checkout that is not installed is put on the
    path; an installed one is there, and naming site-packages would put it before Python's own.
    """
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    here = Path(__file__).parents[1]
    if here.name not in ("site-packages", "dist-packages"):
        paths = (str(here), os.environ.get("PYTHONPATH", ""))
        env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return env


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> Finished:
    """Run a command to its end and return what it printed; its failure is the caller's to judge.

    Args:
        argv: Program and arguments; never a shell line.
        timeout_s: After this the whole process group is killed and `timed_out` is set.
        env: The whole environment; None inherits ours.
        stdin: Text fed to it.

    Raises:
        MissingError: The program does not exist or may not be executed.
    """
    group = _Group(argv, cwd, env, subprocess.PIPE)
    readers = [_Reader(group.stdout), _Reader(group.stderr())]
    threading.Thread(target=group.feed, args=(stdin,), daemon=True).start()
    try:
        timed_out = not group.wait(timeout_s)
    finally:
        group.kill()
        for reader in readers:
            if not reader.end(_GRACE_S):
                group.signal_all()
                reader.end(_GRACE_S)
    out, err = (reader.text() for reader in readers)
    return group.finished(timed_out=timed_out, stdout=out, stderr=err)


def start_detached(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> int:
    """Start a process that outlives this one, in a session of its own; return its number.

    Args:
        argv: Program and arguments.
        log: Its stdout and stderr are appended to this file.
        env: The whole environment; None inherits ours.

    Raises:
        MissingError: The program does not exist or may not be executed.
    """
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(argv),
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as err:
        raise _cannot_start(argv[0], err) from err
    process.returncode = 0  # nobody here waits for it
    return process.pid


class Child:
    """A child that talks over its pipes, one line at a time; stderr goes to a log file.

    Use it in a `with`: leaving kills the process group if it still runs.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            argv: Program and arguments.
            log: stderr is appended to this file.

        Raises:
            MissingError: The program does not exist or may not be executed.
        """
        with log.open("ab") as errors:
            self._group = _Group(argv, cwd, env, errors)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._finished: Finished | None = None

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed under us at the end
            for line in self._group.stdout:
                self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def send(self, line: str) -> bool:
        """Write one line; False if the child no longer reads."""
        try:
            self._group.stdin.write(line.encode() + b"\n")
            self._group.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def receive(self, timeout_s: float) -> str | None:
        """Return the next line, None at the end of its output.

        Raises:
            TimeoutError: Nothing came in time; the child is left as it is.
        """
        try:
            line = self._lines.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise TimeoutError(f"no line within {timeout_s:.0f} s") from None
        if line is None:
            self._lines.put(None)  # the end stays the end
        return line

    def finish(self, timeout_s: float) -> Finished:
        """Close its stdin, wait, kill it if its time is up, and return how it ended."""
        if self._finished is None:
            with contextlib.suppress(OSError):
                self._group.stdin.close()
            timed_out = not self._group.wait(timeout_s)
            if timed_out:
                self._group.kill()
            self._finished = self._group.finished(timed_out=timed_out)
        return self._finished

    def kill(self) -> Finished:
        """Kill its process group if it still runs and return how it ended."""
        if self._finished is None:
            timed_out = not self._group.wait(0.0)
            self._group.kill()
            self._finished = self._group.finished(timed_out=timed_out)
        return self._finished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._thread.join(_GRACE_S)
        if self._thread.is_alive():
            self._group.signal_all()
            self._thread.join(_GRACE_S)
        if not self._thread.is_alive():
            self._group.close()


class _Reader:
    """Drains one pipe in a thread, so that the child never blocks on a full one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while part := os.read(self._stream.fileno(), 1 << 16):
            self._parts.append(part)

    def end(self, timeout_s: float) -> bool:
        """Wait for the end of the pipe and close it; leave it open if somebody holds it still."""
        self._thread.join(timeout_s)
        ended = not self._thread.is_alive()
        if ended:
            self._stream.close()
        return ended

    def text(self) -> str:
        return b"".join(self._parts).decode(errors="replace")


class _Group:
    """A child that leads its own process group; nobody but us waits for it."""

    def __init__(
        self,
        argv: Sequence[str],
        cwd: Path | None,
        env: Mapping[str, str] | None,
        stderr: int | IO[bytes],
    ) -> None:
        self._argv = tuple(argv)
        self._start = time.monotonic()
        self._cost = (0.0, 0.0, 0)
        try:
            self._process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as err:
            raise _cannot_start(argv[0], err) from err
        self.stdin = _pipe(self._process.stdin)
        self.stdout = _pipe(self._process.stdout)

    def stderr(self) -> IO[bytes]:
        return _pipe(self._process.stderr)

    def feed(self, text: str) -> None:
        with contextlib.suppress(OSError):  # it may end, or close its stdin, before reading all
            self.stdin.write(text.encode())
        with contextlib.suppress(OSError):
            self.stdin.close()

    def wait(self, timeout_s: float) -> bool:
        """Return whether it ended in time; asks at least once."""
        deadline = time.monotonic() + timeout_s
        pause = 0.0005
        while not self._reap(os.WNOHANG):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.02)
        return True

    def kill(self) -> None:
        """Kill the group and reap its leader."""
        if self._process.returncode is None:
            self.signal_all()
            self._reap(0)

    def signal_all(self) -> None:
        """Kill what is left of the group; the kernel keeps its number while a member lives."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reap(self, flags: int) -> bool:
        if self._process.returncode is not None:
            return True
        pid, status, usage = os.wait4(self._process.pid, flags)
        if pid == 0:
            return False
        self._process.returncode = os.waitstatus_to_exitcode(status)
        # ru_maxrss is in KiB on Linux, in bytes on macOS (getrusage(2) of each).
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self._cost = (time.monotonic() - self._start, usage.ru_utime + usage.ru_stime, peak)
        return True

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                stream.close()

    def finished(self, *, timed_out: bool, stdout: str = "", stderr: str = "") -> Finished:
        code = self._process.returncode
        return Finished(self._argv, code, stdout, stderr, timed_out, *self._cost)


def _cannot_start(program: str, err: OSError) -> MissingError:
    return MissingError(
        "cannot-start",
        f"cannot start {program}",
        why=str(err),
        next=f"install it, or check PATH: command -v {Path(program).name}",
    )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise AssertionError("the child was started without this pipe")
    return stream
