"""The waterfall says which level lost how much, with the limits of target and floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilepack.contract.parity import Level, Measured
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.runner import Logits, Step, TokenArray
from mobilepack.metrics.checks import Checks, plan_checks
from mobilepack.metrics.ladder import Judge
from mobilepack.metrics.tolerance import Limits, measured_floor
from mobilepack.metrics.waterfall import Stood, Waterfall, budget_of
from mobilepack.testing import FakeHarness, ToyModel
from tests.packages import VOCAB, toy_reference


def _noisy(size: float, seed: int) -> Step:
    model, rng = ToyModel(VOCAB), np.random.default_rng(seed)

    def step(tokens: TokenArray, position: int) -> Logits:
        logits = model(tokens, position)
        return logits + np.float32(size) * rng.standard_normal(logits.shape, "f4")

    return step


def _result(step: Step, checks: Checks, folder: Path) -> RunResult:
    ids = tuple(range(VOCAB))
    plan = RunPlan(
        max_seq_len=64, prefill_chunk=16, sample_ids=ids, top_k=VOCAB, items=checks.items
    )
    return FakeHarness(step).run(folder, plan, log=folder / "log.txt")


def _levels(
    folder: Path, noise: dict[str, float], budget: Limits | None = None, *, quantised: bool = True
) -> dict[str, Level]:
    reference = toy_reference(quantised=quantised)
    checks = plan_checks(reference.index, prefill_chunk=16, max_seq_len=64, decode_steps=64)
    judge = Judge(reference, "program on host", measured_floor(reference), None)
    stood = [
        Stood(rung, "here", "fake", _result(_noisy(size, n), checks, folder), judge.top)  # type: ignore[arg-type]
        for n, (rung, size) in enumerate(noise.items())
    ]
    levels = Waterfall(judge, checks, budget or {}).levels(stood)
    assert {level.compared for level in levels} == {sum(len(c.item.calls) for c in checks.teachers)}
    return {level.rung: level for level in levels}


def _metric(level: Level, against: str, name: str) -> Measured:
    loss = next(loss for loss in level.losses if loss.against == against)
    return next(metric for metric in loss.metrics if metric.name == name)


def test_each_level_is_held_against_the_one_before_and_the_top(tmp_path: Path) -> None:
    noise = {"exported": 0.0, "program on host": 0.01, "program on device": 0.0}
    found = _levels(tmp_path, noise)
    against = {rung: [loss.against for loss in level.losses] for rung, level in found.items()}
    assert against == {
        "eager fp32": [],
        "eager quantised": ["eager fp32"],
        "exported": ["eager quantised", "eager fp32"],
        "program on host": ["exported", "eager fp32"],
        "program on device": ["program on host", "eager fp32"],
    }
    # the reference's fp32 is the toy with noise of 0.2, its quantised the toy itself
    lost = {r: _metric(v, "eager fp32", "sqnr_db").value for r, v in found.items() if v.losses}
    assert max(lost.values()) - min(lost.values()) < 0.1
    step = _metric(found["program on host"], "exported", "sqnr_db").value
    signal = float(np.sqrt(np.square(toy_reference().rows["fp32"].sampled).mean()))
    assert step == pytest.approx(20 * np.log10(signal / 0.01), abs=0.5)


def test_the_level_that_breaks_is_named_and_those_below_are_not(tmp_path: Path) -> None:
    found = _levels(tmp_path, {"exported": 0.0, "program on host": 0.5, "program on device": 0.5})
    assert found["exported"].status == "passed"
    broken = found["program on host"]
    assert broken.status == "failed"
    assert "against exported: rms_over_std" in broken.reason
    assert "perturbation floor" in broken.reason


def test_greedy_text_is_counted_token_by_token(tmp_path: Path) -> None:
    found = _levels(tmp_path, {"exported": 0.0, "program on host": 30.0})
    exact, wrong = found["exported"].greedy, found["program on host"].greedy
    assert exact is not None
    assert wrong is not None
    assert (exact.count, exact.of) == (6, 6)
    assert wrong.count < wrong.of == 6


def test_the_target_file_limits_what_quantisation_may_cost(tmp_path: Path) -> None:
    assert _levels(tmp_path, {})["eager quantised"].status == "reported"
    generous = budget_of(50.0, None, None, None, "xnnpack")
    assert _levels(tmp_path, {}, generous)["eager quantised"].status == "passed"
    strict = budget_of(None, 1e-6, 1.0, None, "mine")
    level = _levels(tmp_path, {}, strict)["eager quantised"]
    assert level.status == "failed"
    assert "kl_mean" in level.reason
    assert "mine allows so much" in level.reason


def test_a_level_that_did_not_run_says_why_and_nans_are_a_failure(tmp_path: Path) -> None:
    reference = toy_reference()
    checks = plan_checks(reference.index, prefill_chunk=16, max_seq_len=64, decode_steps=4)

    def nan(tokens: TokenArray, position: int) -> Logits:
        return np.full(VOCAB, np.nan, np.float32)

    judge = Judge(reference, "program on host", None, None)
    stood = [
        Stood("exported", "", "PyTorch", reason="too big"),
        Stood("program on host", "host", "fake", _result(nan, checks, tmp_path), "fp32"),
    ]
    _, exported, host = Waterfall(judge, checks, {}).levels(stood)
    assert (exported.status, exported.reason) == ("not run", "too big")
    assert host.status == "failed"
    assert "NaN" in host.reason
