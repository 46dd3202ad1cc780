"""Costs are those of the whole tree, and a limit is a limit."""

from __future__ import annotations

import sys

import pytest

from benchmarks.process import run_measured

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_BUSY_GRANDCHILD = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "x = bytearray(64 << 20)\\nfor i in range(3_000_000): pass"])
"""


def test_time_and_memory_of_a_grandchild_are_counted() -> None:
    done = run_measured([sys.executable, "-c", _BUSY_GRANDCHILD], limit_s=60, sample_memory=True)
    assert done.returncode == 0
    assert done.cpu_s > 0.02
    assert done.peak_rss_bytes > 64 << 20
    assert done.peak_anonymous_bytes is not None
    assert done.peak_anonymous_bytes > 32 << 20


def test_a_command_past_its_limit_is_killed_and_says_so() -> None:
    done = run_measured([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.5)
    assert done.timed_out
    assert "time limit" in done.explain_failure()
    assert done.wall_s < 30


def test_output_of_a_failed_command_is_kept() -> None:
    script = "import sys; print('data'); print('cause', file=sys.stderr); sys.exit(3)"
    done = run_measured([sys.executable, "-c", script], limit_s=60)
    assert (done.returncode, done.stdout) == (3, "data\n")
    assert "exit status 3: cause" in done.explain_failure()
