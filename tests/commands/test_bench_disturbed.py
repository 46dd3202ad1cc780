"""A run that is really disturbed is not believed: the runner is stopped and let go at random."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Stop the runner for 20 to 80 ms, about ten times in a second."""
    over, random = threading.Event(), Random(seed)

    def disturb() -> None:
        me = psutil.Process()
        while not over.wait(0.02 + 0.05 * random.random()):
            for child in me.children(recursive=True):
                try:
                    os.kill(child.pid, signal.SIGSTOP)
                    over.wait(0.02 + 0.06 * random.random())
                    os.kill(child.pid, signal.SIGCONT)
                except ProcessLookupError:
                    continue

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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
