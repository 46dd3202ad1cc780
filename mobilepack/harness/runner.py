"""The items of a run plan, carried out with any function that runs one call of the model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time, chunked
from mobilepack.contract.run_result import Generated, Row, Timing
from mobilepack.harness.base import OnProgress, Progress
from mobilepack.harness.recorder import row

TokenArray = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class Step(Protocol):
    """One call of the model."""

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on; return the last one's logits [V].

        The array may be overwritten by the next call.
        """


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from; tests bring their own."""

    now_ns: Callable[[], int] = time.monotonic_ns
    sleep_s: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class Outcome:
    """What the items brought back, in the order of the plan."""

    rows: list[Row] = field(default_factory=list)
    generated: list[Generated] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)


def run_items(plan: RunPlan, step: Step, on_progress: OnProgress, clock: Clock) -> Outcome:
    """Carry out every item in order."""
    out = Outcome()
    for index, item in enumerate(plan.items):
        on_progress(Progress(item.name, index, len(plan.items)))
        if isinstance(item, Teacher):
            out.rows += _teach(plan, item, step)
        elif isinstance(item, Generate):
            out.generated.append(_generate(plan, item, step, clock))
        else:
            out.timings.append(_time(plan, item, step, clock))
    on_progress(Progress("", len(plan.items), len(plan.items)))
    return out


def _teach(plan: RunPlan, item: Teacher, step: Step) -> list[Row]:
    tokens = np.array(item.token_ids, dtype=np.int64)
    rows = []
    position = 0
    for count in item.calls:
        end = position + count
        logits = step(tokens[position:end], position)
        following = item.token_ids[end] if end < len(tokens) else None
        rows.append(row(plan, item.name, logits, span=(position, end), next_id=following))
        position = end
    return rows


def _generate(plan: RunPlan, item: Generate, step: Step, clock: Clock) -> Generated:
    start = clock.now_ns()
    token = greedy(prefill(step, np.array(item.token_ids, dtype=np.int64), 0, plan.prefill_chunk))
    ttft_ns = clock.now_ns() - start
    ids, decode_ns = [token], []
    while len(ids) < item.max_new_tokens and ids[-1] not in item.stop_ids:
        start = clock.now_ns()
        position = len(item.token_ids) + len(ids) - 1
        ids.append(greedy(step(np.array(ids[-1:], dtype=np.int64), position)))
        decode_ns.append(clock.now_ns() - start)
    return Generated(
        item=item.name,
        token_ids=tuple(ids),
        stopped=ids[-1] in item.stop_ids,
        ttft_ns=ttft_ns,
        decode_ns=tuple(decode_ns),
    )


def _time(plan: RunPlan, item: Time, step: Step, clock: Clock) -> Timing:
    ids = np.resize(np.array(item.token_ids, dtype=np.int64), item.positions)
    prefill_ns, decode_ns = [], []
    for number in range(item.warmups + item.repetitions):
        if item.cooldown_s and (number == 0 or number > item.warmups):
            clock.sleep_s(item.cooldown_s)
        if item.n_depth:  # again for every round: a recurrent state cannot be rewound
            prefill(step, ids[: item.n_depth], 0, plan.prefill_chunk)
        prompt_ns, token_ns = _round(plan, item, ids, step, clock)
        if number >= item.warmups:
            prefill_ns.append(prompt_ns)
            decode_ns.append(token_ns)
    return Timing(
        item=item.name,
        prefill_ns=tuple(prefill_ns) if item.n_prompt else (),
        decode_ns=tuple(decode_ns),
    )


def _round(
    plan: RunPlan, item: Time, ids: TokenArray, step: Step, clock: Clock
) -> tuple[int, tuple[int, ...]]:
    start = clock.now_ns()
    position = item.n_depth + item.n_prompt
    if item.n_prompt:
        prefill(step, ids[item.n_depth : position], item.n_depth, plan.prefill_chunk)
    marks = [clock.now_ns()]
    for index in range(position, position + item.n_gen):
        step(ids[index : index + 1], index)
        marks.append(clock.now_ns())
    return marks[0] - start, tuple(b - a for a, b in itertools.pairwise(marks))


class Refeeding:
    """A step whose program has a recurrent state: what a rewind would need is fed again.

    A KV cache can be used up to any position, a state is where the last call left it. A program
    refuses to go on from anywhere else (docs/decisions/0014).
    """

    def __init__(self, step: Step, chunk: int) -> None:
        """Wrap a step; `chunk` is the longest call."""
        self._step = step
        self._chunk = chunk
        self._fed: list[int] = []

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on, whatever was fed last."""
        if position < len(self._fed):
            del self._fed[position:]
            if position:
                prefill(self._step, np.array(self._fed, dtype=np.int64), 0, self._chunk)
        self._fed += tokens.tolist()
        return self._step(tokens, position)


def prefill(step: Step, tokens: TokenArray, position: int, chunk: int) -> Logits:
    """Feed tokens [S >= 1] in chunks from a position on; return the last one's logits."""
    fed = 0
    for count in chunked(len(tokens), chunk):
        logits = step(tokens[fed : fed + count], position + fed)
        fed += count
    return logits


def greedy(logits: Logits) -> int:
    """Return the id of the largest logit, the lowest id of several."""
    return int(np.argmax(logits))
