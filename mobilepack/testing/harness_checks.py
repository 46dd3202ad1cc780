"""The tests that every harness passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time
from mobilepack.contract.run_result import Row
from mobilepack.harness.base import Harness, Progress

_IDS = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)
"""What the harness checks feed; the program needs a vocabulary of at least 10."""


def _plan(program: str, *items: Teacher | Generate | Time, threads: int = 1) -> RunPlan:
    return RunPlan(
        program=program,
        max_seq_len=32,
        prefill_chunk=8,
        sample_ids=(0, 5, 9),
        top_k=4,
        threads=threads,
        items=items,
    )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _near(a: Row, b: Row) -> bool:
    left = (*a.sampled, a.logsumexp, *a.top_logits)
    right = (*b.sampled, b.logsumexp, *b.top_logits)
    return len(left) == len(right) and bool(np.allclose(left, right, rtol=1e-4, atol=1e-4))


def rows_say_what_was_fed(harness: Harness, package: Path, program: str, log: Path) -> None:
    """One row per call, in order, with the plan's sizes and a logsumexp above every logit."""
    plan = _plan(program, Teacher(name="t", token_ids=_IDS, calls=(3, 1, 6)))
    result = harness.run(package, plan, log=log)
    found = [(row.item, row.position, row.call_tokens) for row in result.rows]
    _expect(found == [("t", 2, 3), ("t", 3, 1), ("t", 9, 6)], f"rows are {found}")
    for row in result.rows:
        _expect(len(row.sampled) == 3 and len(row.top_ids) == 4, "sampled or top are cut wrongly")
        _expect(list(row.top_logits) == sorted(row.top_logits, reverse=True), "top is unsorted")
        _expect(row.logsumexp >= row.top_logits[0], "logsumexp is below the largest logit")
    _expect(result.rows[-1].next_logit is None, "the last token has no next")
    _expect(result.rows[0].next_logit is not None, "an inner token has a next")
    digest = hashlib.sha256(plan.to_json().encode()).hexdigest()
    _expect(result.plan_sha256 == digest, "plan_sha256 is not the plan's")
    _expect(log.is_file(), "there is no log")


def decode_equals_prefill(harness: Harness, package: Path, program: str, log: Path) -> None:
    """Feeding token by token gives the logits of feeding all at once, also after another prompt."""
    plan = _plan(
        program,
        Teacher(name="one by one", token_ids=_IDS, calls=(1,) * 8),
        Teacher(name="another", token_ids=_IDS[::-1], calls=(8, 2)),
        Teacher(name="at once", token_ids=_IDS, calls=(8,)),
    )
    rows = harness.run(package, plan, log=log).rows
    _expect(_near(rows[7], rows[-1]), f"{rows[7]} is not {rows[-1]}")


def generation_is_greedy_and_stops(
    harness: Harness, package: Path, program: str, log: Path
) -> None:
    """Each new token is the top of the row that precedes it; a stop id ends it and is kept."""
    free = Generate(name="free", token_ids=_IDS, max_new_tokens=6)
    text = harness.run(package, _plan(program, free), log=log).generated[0]
    _expect(len(text.token_ids) == 6 and not text.stopped, f"{text} is not 6 tokens")
    _expect(len(text.decode_ns) == 5 and text.ttft_ns > 0, f"times of {text} are wrong")
    whole = (*_IDS, *text.token_ids)
    check = Teacher(name="check", token_ids=whole, calls=(8, 2, *(1,) * 5))
    rows = harness.run(package, _plan(program, check), log=log).rows[1:]
    tops = tuple(row.top_ids[0] for row in rows)
    _expect(tops == text.token_ids, f"{text.token_ids} is not greedy: {tops}")
    stop = text.token_ids[2]
    until = Generate(name="until", token_ids=_IDS, max_new_tokens=6, stop_ids=(stop,))
    short = harness.run(package, _plan(program, until), log=log).generated[0]
    expected = text.token_ids[: text.token_ids.index(stop) + 1]
    _expect(short.stopped and short.token_ids == expected, f"{short} ignores its stop id")


def timings_are_complete(harness: Harness, package: Path, program: str, log: Path) -> None:
    """One prefill sample per repetition, one decode sample per token; warm-ups are left out."""
    plan = _plan(
        program,
        Time(name="both", token_ids=_IDS, n_prompt=9, n_gen=3, n_depth=4, repetitions=2),
        Time(name="tg", token_ids=_IDS, n_prompt=0, n_gen=2, warmups=0, repetitions=3),
    )
    seen: list[Progress] = []
    result = harness.run(package, plan, log=log, on_progress=seen.append)
    both, tg = result.timings
    _expect(len(both.prefill_ns) == 2 and [len(d) for d in both.decode_ns] == [3, 3], f"{both}")
    _expect(tg.prefill_ns == () and [len(d) for d in tg.decode_ns] == [2, 2, 2], f"{tg}")
    _expect(all(ns > 0 for ns in both.prefill_ns), "time stands still")
    items = [p.item for p in seen][-3:]  # before them, what it takes to get there
    _expect(items == ["both", "tg", ""], f"progress was {seen}")
    _expect(seen[-1].done == seen[-1].total == 2, f"progress ends with {seen[-1]}")
    memory = result.memory
    _expect(0 < memory.before_load_bytes <= memory.peak_bytes, f"memory is {memory}")


HARNESS_CHECKS: tuple[Callable[[Harness, Path, str, Path], None], ...] = (
    rows_say_what_was_fed,
    decode_equals_prefill,
    generation_is_greedy_and_stops,
    timings_are_complete,
)
"""Call each with a harness, a package folder, the program's path in it and a log file. The program
obeys the package's interface with a vocabulary of at least 10 and a cache of at least 32."""
