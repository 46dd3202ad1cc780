"""A run that is really disturbed is not believed: the runner is stopped and let go at random."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.compare import compare
from mobilepack.contract.gate import Gate, Rule
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.host import HostHarness
from tests.harness.parts import quantised

__all__ = ["quantised"]
pytestmark = pytest.mark.slow


class OnABench(HostHarness):
    """This machine, taken for a device that users have: its times may be believed if steady."""

    def run(self, *args: Any, **options: Any) -> RunResult:
        found = super().run(*args, **options)
        environment = found.environment.model_copy(update={"representative": True})
        return found.model_copy(update={"environment": environment})


@contextmanager
def disturbed(seed: int) -> Iterator[None]:
    """Let the runner go for 0.5 to 3 ms and stop it for 0.5 to 60 ms, by turns.

    Short against any repetition and of very different lengths: what a repetition of 1 ms or of a
    second lasts then spreads by far more than a tenth, however fast the machine is.
    """
    over = threading.Event()
    thread = threading.Thread(target=_disturb, args=(over, Random(seed)))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _disturb(over: threading.Event, random: Random) -> None:
    me = psutil.Process()
    while not over.is_set():
        children = me.children(recursive=True)  # takes long, so not before every stop
        for _ in range(20):
            over.wait(random.uniform(0.0005, 0.003))
            stopped = [child for child in children if _signalled(child, signal.SIGSTOP)]
            over.wait(0.0005 * 120 ** random.random())
            for child in stopped:
                _signalled(child, signal.SIGCONT)


def _signalled(process: psutil.Process, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
        return True
    return False


def test_a_disturbed_run_is_noisy_and_fails_no_latency_gate(quantised: Path) -> None:
    options = BenchOptions(prompt_tokens=(48,), gen_tokens=(48,), repetitions=40, threads=1)
    with disturbed(seed=1):
        found = bench(quantised, options, harness=OnABench()).bench
    assert found.representative
    for test in found.tests:
        assert test.trust == "NOISY"
        assert "noisy" in test.trust_reason or "drifting" in test.trust_reason
    impossible = Gate(rule=(Rule(metric="*/tok_per_s", min=1e12),))
    judged = compare(quantised, quantised, impossible).judged
    assert [one.outcome for one in judged] == ["not judged"] * 2
