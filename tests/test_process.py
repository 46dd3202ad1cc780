"""Children are fed, drained, timed, and killed with everything they started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from mobilepack.errors import MissingError
from mobilepack.process import Child, run, signal_name

_SLEEP = "import time; time.sleep(60)"


def _python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(pid: int) -> bool:
    """Tell whether a process ends soon: a kill is a request to the kernel, not yet the end."""
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _alive(pid)


def test_output_status_and_cost_come_back() -> None:
    done = run(
        _python(
            "import sys; x = b'a' * 60_000_000; print(sys.stdin.read())\n"
            "print('e', file=sys.stderr); sys.exit(3)"
        ),
        timeout_s=30,
        stdin="grüß",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("grüß\n", "e\n", 3)
    assert done.ending == "exit status 3"
    assert done.peak_rss_bytes > 60_000_000
    assert 0 < done.cpu_s < 30
    assert done.wall_s > 0


def test_more_output_than_a_pipe_holds_does_not_block() -> None:
    done = run(
        _python("import sys; sys.stderr.write('x' * 300_000); sys.stdout.write('y' * 300_000)"),
        timeout_s=30,
    )
    assert (len(done.stdout), len(done.stderr)) == (300_000, 300_000)


def test_a_child_that_does_not_read_its_stdin_does_not_block_us() -> None:
    done = run(_python("pass"), timeout_s=30, stdin="x" * 1_000_000)
    assert done.returncode == 0


def test_a_signal_is_reported_by_name() -> None:
    done = run(_python("import os; os.kill(os.getpid(), 11)"), timeout_s=30)
    assert done.ending == "killed by SIGSEGV"
    assert signal_name(63) in ("signal 63", "SIGRTMAX-1")


def test_time_up_kills_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        f"import subprocess, sys, time\np = subprocess.Popen({_python(_SLEEP)})\n"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid))\n"
        "print('hello', flush=True); time.sleep(60)\n"
    )
    start = time.monotonic()
    done = run(_python(code), timeout_s=2)
    assert done.timed_out
    assert done.ending == "stopped after 2 s"
    assert done.stdout == "hello\n"
    assert time.monotonic() - start < 20
    assert _gone(int(pid_file.read_text()))


def test_an_interrupt_kills_the_child_and_goes_on(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            run(_python(code), timeout_s=30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not pid_file.exists() or _gone(int(pid_file.read_text()))


def test_a_background_process_that_keeps_the_pipe_is_not_waited_for() -> None:
    code = f"import subprocess, sys\nsubprocess.Popen({_python(_SLEEP)}); print('done')\n"
    start = time.monotonic()
    done = run(_python(code), timeout_s=30)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert time.monotonic() - start < 20


def test_an_absent_program_is_a_missing_error() -> None:
    with pytest.raises(MissingError, match="no-such-program"):
        run(["no-such-program"], timeout_s=1)


def test_a_child_answers_line_by_line(tmp_path: Path) -> None:
    code = (
        "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\n"
        "sys.stderr.write('bye')"
    )
    log = tmp_path / "log.txt"
    with Child(_python(code), log=log) as child:
        assert child.send("abc")
        assert child.receive(20) == "cba"
        assert child.send("xyz")
        assert child.receive(20) == "zyx"
        done = child.finish(20)
        assert child.receive(5) is None
        assert child.receive(5) is None
    assert done.returncode == 0
    assert log.read_text() == "bye"
    assert not child.send("more")


def test_a_silent_child_is_a_timeout_and_then_killed(tmp_path: Path) -> None:
    with Child(_python(_SLEEP), log=tmp_path / "log.txt") as child:
        with pytest.raises(TimeoutError):
            child.receive(0.05)
        done = child.kill()
    assert done.timed_out


def test_leaving_the_with_kills_the_child(tmp_path: Path) -> None:
    with Child(
        _python("import os; print(os.getpid(), flush=True); import time; time.sleep(60)"),
        log=tmp_path / "l",
    ) as child:
        pid = int(child.receive(20) or 0)
        assert _alive(pid)
    assert _gone(pid)
