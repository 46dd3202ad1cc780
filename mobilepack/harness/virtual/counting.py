"""Instructions per token on a virtual phone: exact, repeatable, and no latency."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator
from pathlib import Path

from mobilepack.contract.run_plan import RunPlan, Time
from mobilepack.contract.run_result import RunResult, Timing
from mobilepack.errors import RunFailedError
from mobilepack.harness.android.native_run import Wrapping
from mobilepack.harness.virtual.root import COUNTER, emulator_root

_FILE = "instructions.txt"
_PREFILL, _DECODE, _END = 1, 2, 3  # harness/native/src/marks.h
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


def counting(cpu: str) -> Wrapping:
    """Return how to run a runner under the emulator that counts.

    The phone itself runs under the static emulator, which takes no plug-ins; this starts the
    dynamic one inside the phone, with this machine's own loader and libraries from `/host`.
    """
    machine = platform.machine()
    folders = (f"usr/lib/{machine}-linux-gnu", f"lib/{machine}-linux-gnu")
    loader = next(f for f in folders if (emulator_root() / f / _LOADERS[machine]).is_file())
    words = (
        *("env", "MOBILEPACK_MARKS=1"),
        *(f"/host/{loader}/{_LOADERS[machine]}", "--library-path"),
        ":".join(f"/host/{folder}" for folder in folders),
        *("/host/usr/bin/qemu-aarch64", "-cpu", cpu),
        *("-plugin", f"/system/{COUNTER},out={{run}}/{_FILE}"),
    )
    return Wrapping(words, _FILE, add_counts)


def add_counts(result: RunResult, plan: RunPlan, file: Path) -> RunResult:
    """Put the counts of every timed item into a result.

    Raises:
        RunFailedError: The marks are not those of the plan.
    """
    marks = iter(_marks(file))
    timed = {item.name: item for item in plan.items if isinstance(item, Time)}
    try:
        timings = tuple(_counted(one, timed[one.item], marks) for one in result.timings)
    except (StopIteration, ValueError) as err:
        raise RunFailedError(
            "counts-garbled",
            "the instruction counter did not see the run that the plan asks for",
            why=str(err) or "it ended too early",
            next="run it again; if it stays so, report it with log.txt",
        ) from err
    return result.model_copy(update={"timings": timings})


def _marks(file: Path) -> Iterator[tuple[int, int]]:
    for line in file.read_text().splitlines():
        mark, count = line.split()
        if mark != "exit":
            yield int(mark), int(count)


def _counted(timing: Timing, item: Time, marks: Iterator[tuple[int, int]]) -> Timing:
    prefill: list[int] = []
    decode: list[tuple[int, ...]] = []
    for number in range(item.warmups + item.repetitions):
        expected = [_PREFILL] * (item.n_prompt > 0) + [_DECODE] * item.n_gen + [_END]
        found = [next(marks) for _ in expected]
        if [mark for mark, _ in found] != expected:
            raise ValueError(f"marks of {item.name} are out of order")
        costs = [b - a for (_, a), (_, b) in itertools.pairwise(found)]
        if number >= item.warmups:
            prefill += costs[: item.n_prompt > 0]
            decode.append(tuple(costs[item.n_prompt > 0 :]))
    update = {"prefill_instructions": tuple(prefill), "decode_instructions": tuple(decode)}
    return timing.model_copy(update=update)
