"""Items are carried out as the plan says, whatever the model is."""

from __future__ import annotations

import numpy as np

from mobilepack.contract.run_plan import RunPlan, Teacher, Time
from mobilepack.harness.base import silent
from mobilepack.harness.runner import Clock, Logits, Refeeding, TokenArray, run_items
from mobilepack.testing import ToyModel


class Recording:
    """A model that writes down its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], int]] = []

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        self.calls.append((tuple(tokens.tolist()), position))
        return np.zeros(8, dtype=np.float32)


def _plan(*items: Teacher | Time) -> RunPlan:
    return RunPlan(max_seq_len=64, prefill_chunk=4, top_k=2, items=items)


def test_a_timed_round_begins_again_at_its_depth_and_cools_down_between() -> None:
    model, pauses = Recording(), []
    item = Time(
        name="t",
        token_ids=(1, 2, 3),
        n_prompt=5,
        n_gen=2,
        n_depth=2,
        warmups=1,
        repetitions=2,
        cooldown_s=0.5,
    )
    out = run_items(_plan(item), model, silent, Clock(sleep_s=pauses.append))
    one_round = [((3, 1, 2, 3), 2), ((1,), 6), ((2,), 7), ((3,), 8)]
    assert model.calls == [((1, 2), 0), *one_round] * 3  # a recurrent state cannot be rewound
    assert pauses == [0.5, 0.5]  # before the warm-up and between the repetitions
    assert len(out.timings[0].prefill_ns) == 2


def test_what_a_rewound_state_needs_is_fed_again() -> None:
    model = Recording()
    step = Refeeding(model, 3)
    for tokens, position in (((1, 2, 3), 0), ((4,), 3), ((5, 6), 4), ((7,), 4), ((8,), 0)):
        step(np.array(tokens, dtype=np.int64), position)
    straight = [((1, 2, 3), 0), ((4,), 3), ((5, 6), 4)]
    again = [((1, 2, 3), 0), ((4,), 3), ((7,), 4)]
    assert model.calls == [*straight, *again, ((8,), 0)]


def test_time_is_taken_around_the_calls_only() -> None:
    now = [0]

    def slow(tokens: TokenArray, position: int) -> Logits:
        now[0] += 10 * len(tokens)
        return np.zeros(8, dtype=np.float32)

    item = Time(name="t", token_ids=(1,), n_prompt=6, n_gen=2, warmups=0, repetitions=1)
    timing = run_items(_plan(item), slow, silent, Clock(now_ns=lambda: now[0])).timings[0]
    assert timing.prefill_ns == (60,)
    assert timing.decode_ns == ((10, 10),)


def test_a_row_is_taken_before_the_next_call_overwrites_the_logits() -> None:
    shared = np.zeros(8, dtype=np.float32)

    def reusing(tokens: TokenArray, position: int) -> Logits:
        shared[:] = position + np.arange(8)
        return shared

    item = Teacher(name="t", token_ids=(1, 2), calls=(1, 1))
    rows = run_items(_plan(item), reusing, silent, Clock()).rows
    assert [row.top_logits[0] for row in rows] == [7.0, 8.0]
    assert rows[0].next_logit == 2.0


def test_infinite_logits_are_counted_and_not_written() -> None:
    def broken(tokens: TokenArray, position: int) -> Logits:
        return np.array([0, np.nan, -np.inf, 1], dtype=np.float32)

    row = run_items(_plan(Teacher(name="t", token_ids=(1,), calls=(1,))), broken, silent, Clock())
    assert row.rows[0].non_finite == 2
    assert row.rows[0].top_ids == ()


def test_the_toy_model_depends_on_every_token_before() -> None:
    whole = ToyModel()(np.array([5, 6, 7]), 0)
    model = ToyModel()
    model(np.array([5]), 0)
    model(np.array([6]), 1)
    np.testing.assert_array_equal(model(np.array([7]), 2), whole)
    assert not np.array_equal(ToyModel()(np.array([4, 6, 7]), 0), whole)
