"""The ladder passes what is right and names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilepack.contract.parity import ParityRow, PerturbationFloor
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.runner import Logits, Step, TokenArray
from mobilepack.metrics.checks import Checks, plan_checks
from mobilepack.metrics.ladder import Judge
from mobilepack.metrics.tolerance import RMS_OVER_STD_CAP, limits_of, measured_floor
from mobilepack.testing import FakeHarness, ToyModel
from tests.packages import VOCAB, toy_reference

Rows = tuple[ParityRow, ...]


def _judge(step: Step, folder: Path, *, quantised: bool = False, room: int = 64) -> Rows:
    reference = toy_reference(quantised=quantised)
    checks = plan_checks(reference.index, prefill_chunk=16, max_seq_len=room, decode_steps=64)
    result = _run(step, checks, folder, room)
    return Judge(reference, "program on host", measured_floor(reference), None).rows(checks, result)


def _run(step: Step, checks: Checks, folder: Path, room: int) -> RunResult:
    plan = RunPlan(
        max_seq_len=room,
        prefill_chunk=16,
        sample_ids=tuple(range(VOCAB)),
        top_k=VOCAB,
        items=checks.items,
    )
    return FakeHarness(step).run(folder, plan, log=folder / "log.txt")


def _wrapped(change: Callable[[Logits, TokenArray, int], Logits]) -> Step:
    model = ToyModel(VOCAB)

    def step(tokens: TokenArray, position: int) -> Logits:
        return change(model(tokens, position), tokens, position)

    return step


def _failed(rows: Rows) -> set[str]:
    return {row.check.split(":")[0] for row in rows if row.status == "failed"}


@pytest.mark.parametrize("quantised", [False, True])
def test_the_right_program_passes_everything(tmp_path: Path, quantised: bool) -> None:
    rows = _judge(ToyModel(VOCAB), tmp_path, quantised=quantised)
    assert _failed(rows) == set()
    passed = {row.check.split(":")[0] for row in rows if row.status == "passed"}
    assert {"shortest", "odd", "longest", "second prompt", "end", "whole cache"} <= passed
    tops = {row.against for row in rows if row.rung == "program on host"}
    assert ("eager quantised" if quantised else "eager fp32") in tops


def test_a_quantised_program_may_be_as_noisy_as_its_model_and_not_more(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def noisy(size: float) -> Step:
        return _wrapped(lambda x, *_: x + np.float32(size) * rng.standard_normal(x.shape, "f4"))

    # The reference's floor was recorded with noise of 0.02, twice that is allowed.
    assert not _failed(_judge(noisy(0.025), tmp_path, quantised=True))
    assert "shortest" in _failed(_judge(noisy(0.06), tmp_path, quantised=True))
    assert "shortest" in _failed(_judge(noisy(0.001), tmp_path, quantised=False))


def test_a_cache_that_remembers_the_prompt_before_is_caught(tmp_path: Path) -> None:
    class Sticky(ToyModel):
        def __call__(self, tokens: TokenArray, position: int) -> Logits:
            if position == 0:
                self._states[-1] = self._states.get(40 - 1, 1)  # what the longest left there
            return super().__call__(tokens, position)

    rows = _judge(Sticky(VOCAB), tmp_path)
    assert "second prompt" in _failed(rows)
    assert "shortest" not in _failed(rows)


def test_a_prefill_that_differs_from_decoding_is_caught(tmp_path: Path) -> None:
    step = _wrapped(lambda x, tokens, _: x[::-1].copy() if len(tokens) > 4 else x)
    rows = _judge(step, tmp_path)
    assert any("decode steps against whole prefills" in check for check in _failed(rows))
    assert "shortest" not in _failed(rows)


def test_a_long_call_that_goes_wrong_where_no_reference_reaches_is_caught(tmp_path: Path) -> None:
    def late(x: Logits, tokens: TokenArray, position: int) -> Logits:
        return x + 1 if position + len(tokens) > 45 and len(tokens) == 16 else x

    class Forgetful(ToyModel):
        def __call__(self, tokens: TokenArray, position: int) -> Logits:
            logits = super().__call__(tokens, position)
            if position + len(tokens) > 45 and len(tokens) > 10:
                self._states[position + len(tokens) - 1] += 1
            return logits

    assert _failed(_judge(Forgetful(VOCAB), tmp_path)) == {"whole cache"}


def test_not_a_number_is_a_failed_row_that_says_where(tmp_path: Path) -> None:
    step = _wrapped(lambda x, _, position: x * np.nan if position == 12 else x)
    rows = _judge(step, tmp_path)
    bad = [row for row in rows if "NaN" in row.reason and row.status == "failed"]
    assert bad
    assert all("position 12" in row.reason for row in bad)


def test_rows_that_did_not_come_back_are_a_failed_row(tmp_path: Path) -> None:
    reference = toy_reference()
    checks = plan_checks(reference.index, prefill_chunk=16, max_seq_len=64, decode_steps=64)
    result = _run(ToyModel(VOCAB), checks, tmp_path, 64)
    short = result.model_copy(update={"rows": result.rows[:-1], "generated": ()})
    rows = Judge(reference, "program on host", None, None).rows(checks, short)
    reasons = " ".join(row.reason for row in rows if row.status == "failed")
    assert "brought back" in reasons
    assert "no text" in reasons


def test_other_text_is_caught_by_the_greedy_row(tmp_path: Path) -> None:
    step = _wrapped(lambda x, _, position: x[::-1].copy() if position == 14 else x)
    greedy = [row for row in _judge(step, tmp_path) if row.check.startswith("greedy")]
    assert greedy[0].status == "failed"
    assert greedy[0].metrics[0].value == 1


def test_a_limit_on_perplexity_is_judged_only_when_asked(tmp_path: Path) -> None:
    reference = toy_reference(quantised=True)
    checks = plan_checks(reference.index, prefill_chunk=16, max_seq_len=64, decode_steps=64)
    result = _run(ToyModel(VOCAB), checks, tmp_path, 64)
    for limit, status in ((None, "reported"), (1000.0, "passed"), (0.5, "failed")):
        judge = Judge(reference, "program on host", measured_floor(reference), limit)
        row = judge.rows(checks, result)[-1]
        assert (row.against, row.status) == ("eager fp32", status)


def test_a_few_positions_are_judged_by_the_noise_of_a_few() -> None:
    """A single position may move more than all together; the cap holds for both."""
    floor = PerturbationFloor(
        rms_over_std=0.01, cosine_min=0.999, kl_max=1e-3, position_rms_over_std=0.03
    )

    def limit(positions: int | None) -> float:
        return limits_of("8da4w", floor, positions)["rms_over_std"].value

    assert limit(None) == pytest.approx(0.02)
    assert limit(1) == pytest.approx(0.06)
    assert limit(1) > limit(4) > limit(100) > limit(None)
    assert limit(100) < 0.021
    wild = floor.model_copy(update={"position_rms_over_std": 9.0})
    assert limits_of("8da4w", wild, 1)["rms_over_std"].value == RMS_OVER_STD_CAP
