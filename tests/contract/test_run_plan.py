"""A run plan that cannot be carried out is refused before anything starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time, chunked
from mobilepack.errors import UsageError


def _plan(*items: Teacher | Generate | Time) -> RunPlan:
    return RunPlan(max_seq_len=32, prefill_chunk=8, items=items)


def test_it_round_trips_through_json() -> None:
    plan = _plan(
        Teacher(name="a", token_ids=(1, 2, 3), calls=(2, 1)),
        Generate(name="b", token_ids=(1,), max_new_tokens=3, stop_ids=(2,)),
        Time(name="c", token_ids=(4,), n_prompt=8, n_gen=4, n_depth=2, cooldown_s=0.5),
    )
    assert RunPlan.parse(plan.to_json(), "plan") == plan


def test_all_problems_are_reported_at_once() -> None:
    text = _plan(Teacher(name="a", token_ids=(1,) * 40, calls=(8,))).to_json()
    bad = text.replace("8\n      ]", "9, 8, 8, 8\n      ]")
    with pytest.raises(UsageError) as caught:
        RunPlan.parse(bad, "plan")
    assert "a needs 33 positions of 32" in caught.value.why
    assert "a call longer than 8" in caught.value.why


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (Teacher(name="a", token_ids=(1,), calls=(2,)), "feeds 2 of 1 ids"),
        (Generate(name="a", token_ids=(1,) * 30, max_new_tokens=4), "needs 33 positions"),
        (Time(name="a", token_ids=(1,), n_prompt=0, n_gen=0), "times nothing"),
        (Time(name="a", token_ids=(1,), n_prompt=20, n_gen=5, n_depth=8), "needs 33 positions"),
    ],
)
def test_an_item_that_cannot_be_run_is_refused(
    item: Teacher | Generate | Time, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        _plan(item)


def test_two_items_of_one_name_are_refused() -> None:
    item = Time(name="same", token_ids=(1,), n_prompt=1, n_gen=0)
    with pytest.raises(ValueError, match="two items are named 'same'"):
        _plan(item, item)


def test_an_item_of_unknown_kind_and_a_negative_id_are_refused() -> None:
    text = _plan(Teacher(name="a", token_ids=(1,), calls=(1,))).to_json()
    for bad in (
        text.replace('"teacher"', '"train"'),
        text.replace("[\n        1", "[\n        -1"),
    ):
        assert bad != text
        with pytest.raises(UsageError):
            RunPlan.parse(bad, "plan")


@given(st.integers(1, 500), st.integers(1, 60))
def test_chunks_cover_the_length_and_only_the_last_is_short(length: int, chunk: int) -> None:
    calls = chunked(length, chunk)
    assert sum(calls) == length
    assert all(c == chunk for c in calls[:-1])
    assert 1 <= calls[-1] <= chunk
