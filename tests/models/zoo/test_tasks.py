"""The task set and its scorer."""

import pytest

from mobilepack.models.zoo.tasks import KINDS, TaskItem, normalise, score, tasks


def test_there_are_about_twenty_items_of_every_kind_always_the_same() -> None:
    items = tasks()
    assert items == tasks()
    assert len(KINDS) >= 5
    for kind in KINDS:
        assert 15 <= sum(item.kind == kind for item in items) <= 20


def test_a_lower_limit_takes_the_first_items_of_each_kind() -> None:
    few, many = tasks(2), tasks(5)
    assert len(few) == 2 * len(KINDS)
    assert set(few) <= set(many)


def test_no_question_is_asked_twice() -> None:
    questions = [item.messages for item in tasks()]
    assert len(set(questions)) == len(questions)


def test_right_answers_score_one_and_wrong_ones_zero() -> None:
    items = tasks(3)
    perfect = score(items, [item.answer for item in items])
    assert perfect.share == 1.0
    assert perfect.by_kind["add"] == (3, 3)
    assert score(items, [item.answer + "x" for item in items]).right == 0


def test_case_space_and_a_full_stop_do_not_matter_but_anything_else_does() -> None:
    items = (TaskItem("fact", (), "Paris"),)
    assert score(items, ["  paris. "]).right == 1
    assert score(items, ["Paris is it"]).right == 0
    assert normalise("a  b\n c") == "a b c"


def test_a_missing_answer_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError):
        score(tasks(1), [])


def test_an_empty_task_set_scores_zero() -> None:
    assert score((), ()).share == 0.0
