"""The child's side of a conversation keeps positions, stops, and can be interrupted."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mobilepack.contract.base import Contract
from mobilepack.harness.runner import Logits
from mobilepack.harness.sampling import Sampler
from mobilepack.harness.serve import LineReader, serve
from mobilepack.harness.talk import End, Request, Token
from mobilepack.testing import ToyModel
from tests.packages import greedy_toy

PROMPT = (3, 1, 4, 1, 5)


def _request(**changes: object) -> Request:
    base = Request(
        token_ids=PROMPT,
        position=0,
        max_new_tokens=4,
        stop_ids=(),
        temperature=0.0,
        top_p=1.0,
        seed=0,
    )
    return base.model_copy(update=changes)


def _serve(*lines: str) -> list[Contract]:
    read, write = os.pipe()
    said: list[Contract] = []
    with os.fdopen(write, "w") as pipe:
        pipe.write("".join(line + "\n" for line in lines))
    try:
        serve(ToyModel(), 4, said.append, LineReader(read))
    finally:
        os.close(read)
    return said


class _Live:
    """Talks to `serve` while it runs: each token may be answered with a line."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.said: list[Contract] = []
        self.after: dict[int, str] = {}

    def __call__(self, event: Contract) -> None:
        self.said.append(event)
        if line := self.after.get(len(self.said)):
            os.write(self.write, line.encode() + b"\n")
        if isinstance(event, End):
            os.close(self.write)

    def run(self, request: Request) -> list[Contract]:
        os.write(self.write, request.model_dump_json().encode() + b"\n")
        serve(ToyModel(), 4, self, LineReader(self.read))
        os.close(self.read)
        return self.said


def test_it_generates_what_the_model_says() -> None:
    said = _Live().run(_request())
    tokens = [event.id for event in said if isinstance(event, Token)]
    assert tuple(tokens) == greedy_toy(PROMPT, 4)[0]
    assert said[-1] == End(positions=8, new_tokens=4, stopped=False, cancelled=False)


def test_a_stop_token_is_said_and_ends_it() -> None:
    text = greedy_toy(PROMPT, 4)[0]
    said = _Live().run(_request(stop_ids=(text[1],)))
    assert [e.id for e in said if isinstance(e, Token)] == list(text[: text.index(text[1]) + 1])
    assert isinstance(said[-1], End)
    assert said[-1].stopped


def test_cancel_ends_it_after_the_token_that_is_being_made() -> None:
    live = _Live()
    live.after[2] = "cancel"
    said = live.run(_request(max_new_tokens=50))
    assert isinstance(said[-1], End)
    assert said[-1].cancelled
    assert said[-1].new_tokens == 2


def test_a_parent_that_is_gone_ends_it() -> None:
    said = _serve(_request(max_new_tokens=50).model_dump_json())
    assert isinstance(said[-1], End)
    assert said[-1].new_tokens == 1


def test_a_cancel_that_comes_too_late_is_ignored() -> None:
    said = _serve("cancel", "cancel")
    assert said == []


def _logits(*values: float) -> Logits:
    return np.array(values, dtype=np.float32)


def test_temperature_zero_is_greedy_with_ties_to_the_lower_id() -> None:
    assert Sampler(0.0, 1.0, 0)(_logits(1, 3, 3)) == 1


def test_the_same_seed_gives_the_same_tokens() -> None:
    logits = _logits(*np.linspace(0, 3, 50))
    runs = [[Sampler(1.0, 0.9, seed)(logits) for seed in range(20)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 3


@pytest.mark.parametrize(("top_p", "allowed"), [(0.4, {2}), (0.7, {2, 1}), (1.0, {0, 1, 2})])
def test_the_nucleus_is_the_smallest_set_that_holds_top_p(top_p: float, allowed: set[int]) -> None:
    logits = _logits(*np.log([0.2, 0.3, 0.5]))
    sampler = Sampler(1.0, top_p, 7)
    assert {sampler(logits) for _ in range(200)} == allowed


def test_sampling_follows_the_probabilities() -> None:
    logits = _logits(*np.log([0.2, 0.3, 0.5]))
    sampler = Sampler(1.0, 1.0, 1)
    counts = np.bincount([sampler(logits) for _ in range(4000)]) / 4000
    np.testing.assert_allclose(counts, [0.2, 0.3, 0.5], atol=0.03)
