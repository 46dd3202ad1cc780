"""Continuations are scored as if each were fed alone, with every shared token fed once."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.base import Contract
from mobilepack.harness.runner import Logits, TokenArray
from mobilepack.harness.scoring import score
from mobilepack.harness.serve import LineReader, serve
from mobilepack.harness.talk import Score, Scored, Scores
from mobilepack.testing import ToyModel
from tests.packages import toy_logits

CONTEXT = (3, 1, 4, 1, 5)
IDS = st.lists(st.integers(0, 60), min_size=1, max_size=5).map(tuple)


class Counting(ToyModel):
    """A toy model that counts the tokens it is fed."""

    fed = 0

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        self.fed += len(tokens)
        return super().__call__(tokens, position)


def alone(context: tuple[int, ...], ids: tuple[int, ...]) -> Scored:
    """Score one continuation from the definition, in float64."""
    rows = toy_logits((*context, *ids))[len(context) - 1 : -1].astype(np.float64)
    logprobs = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    return Scored(
        logprobs=tuple(float(logprobs[i, token]) for i, token in enumerate(ids)),
        greedy=[int(row.argmax()) for row in rows] == list(ids),
    )


def _asked(continuations: tuple[tuple[int, ...], ...], position: int = 0) -> Score:
    return Score(token_ids=CONTEXT[position:], position=position, continuations=continuations)


@given(st.lists(IDS, min_size=1, max_size=6).map(tuple))
def test_it_is_what_each_continuation_gets_alone(
    continuations: tuple[tuple[int, ...], ...],
) -> None:
    found = score(_asked(continuations), ToyModel(), 2).scored
    for ids, row in zip(continuations, found, strict=True):
        expected = alone(CONTEXT, ids)
        # sums of 61 exponentials in float32: relative 61 * 2^-24 at most
        assert row.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        assert row.greedy == expected.greedy


def test_the_greedy_continuation_is_known_as_such() -> None:
    ids = []
    for _ in range(3):
        ids.append(int(toy_logits((*CONTEXT, *ids))[-1].argmax()))
    rows = score(_asked((tuple(ids), (*ids[:2], (ids[2] + 1) % 61))), ToyModel(), 8).scored
    assert [row.greedy for row in rows] == [True, False]


def test_shared_beginnings_are_fed_once_and_last_tokens_never() -> None:
    model = Counting()
    found = score(_asked(((7, 8, 9), (7, 8, 5), (7, 8), (6,))), model, 8)
    assert model.fed == found.fed_tokens == len(CONTEXT) + 2


def test_a_kept_part_of_the_context_is_not_fed_again() -> None:
    model = Counting()
    score(_asked(((7,),)), model, 8)
    model.fed = 0
    found = score(_asked(((9, 2),), position=3), model, 8)
    assert model.fed == 3
    assert found.scored[0].logprobs == pytest.approx(alone(CONTEXT, (9, 2)).logprobs, abs=1e-5)


def test_large_logits_do_not_overflow() -> None:
    def step(tokens: TokenArray, position: int) -> Logits:
        return np.array([3e4, 3e4, -3e4], dtype=np.float32)

    (row,) = score(Score(token_ids=(0,), position=0, continuations=((1,),)), step, 8).scored
    assert row.logprobs[0] == pytest.approx(-math.log(2))
    assert not row.greedy  # a tie goes to the lower id


def test_serve_answers_it_between_generations() -> None:
    read, write = os.pipe()
    said: list[Contract] = []
    with os.fdopen(write, "w") as pipe:
        pipe.write(_asked(((7, 8),)).model_dump_json() + "\n")
    try:
        serve(ToyModel(), 4, said.append, LineReader(read))
    finally:
        os.close(read)
    (answer,) = said
    assert isinstance(answer, Scores)
    assert answer.scored[0].logprobs == pytest.approx(alone(CONTEXT, (7, 8)).logprobs, abs=1e-5)
