"""A harness without a runtime: the plan is carried out for real, only the model is a function.

Like httpx's `MockTransport`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import Environment, Memory, RunResult
from mobilepack.errors import MobilepackError
from mobilepack.harness.base import (
    NO_HURRY,
    Device,
    Limits,
    OnProgress,
    silent,
)
from mobilepack.harness.runner import Clock, Logits, Step, TokenArray, run_items

TICK_NS = 1000
"""The fake clock advances this much whenever it is read."""


class ToyModel:
    """A language model that any language computes exactly, with a cache that must be right.

    The state after tokens t_0 … t_p is `s = (s * 31 + t + 7) mod 1009`, starting from 1; the logit
    of id v is `((s * (v + 3) + v * v) mod 257) / 16`, exact in float32. Each position's state is
    kept, so a call at position p continues from position p - 1, as a KV cache would.
    """

    def __init__(self, vocab_size: int = 61) -> None:
        self.vocab_size = vocab_size
        self._states: dict[int, int] = {-1: 1}

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on; return the last one's logits [V]."""
        state = self._states[position - 1]
        for offset, token in enumerate(tokens.tolist()):
            state = (state * 31 + token + 7) % 1009
            self._states[position + offset] = state
        ids = np.arange(self.vocab_size, dtype=np.int64)
        return ((state * (ids + 3) + ids * ids) % 257 / 16).astype(np.float32)


class FakeHarness:
    """A harness whose program is a Python function and whose clock ticks evenly.

    Attributes:
        ran: Every plan that was run.
    """

    def __init__(
        self,
        step: Step | None = None,
        *,
        device: Device = Device("fake", "fake", "host"),  # noqa: B008 - frozen
        error: MobilepackError | None = None,
    ) -> None:
        """Make one.

        Args:
            step: The model; a `ToyModel` by default.
            error: Raised by every run.
        """
        self._step: Step = step or ToyModel()
        self._device = device
        self._error = error
        self.ran: list[RunPlan] = []

    @property
    def device(self) -> Device:
        """What was given."""
        return self._device

    def run(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        on_progress: OnProgress = silent,
    ) -> RunResult:
        """Carry out the plan in this process; see `Harness.run`."""
        self.ran.append(plan)
        with log.open("a") as stream:
            stream.write(f"fake run of {plan.program} in {package.name}, {limits.run_s:.0f} s\n")
        if self._error is not None:
            raise self._error
        ticks = _ticks()
        clock = Clock(now_ns=lambda: next(ticks), sleep_s=lambda _: None)
        out = run_items(plan, self._step, on_progress, clock)
        return RunResult(
            plan_sha256=hashlib.sha256(plan.to_json().encode()).hexdigest(),
            load_ns=TICK_NS,
            rows=tuple(out.rows),
            generated=tuple(out.generated),
            timings=tuple(out.timings),
            memory=Memory(before_load_bytes=1000, after_load_bytes=3000, peak_bytes=5000),
            environment=Environment(
                kind=self._device.kind,
                representative=False,
                name="fake",
                cpu="none",
                threads=plan.threads or 1,
                runtime={"fake": "1"},
            ),
        )


def _ticks() -> Iterator[int]:
    now = 0
    while True:
        now += TICK_NS
        yield now
