"""How likely continuations of a context are, with as few calls of the program as can be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mobilepack.harness.runner import Logits, Step, greedy, prefill
from mobilepack.harness.talk import Score, Scored, Scores


@dataclass(frozen=True, slots=True)
class _Next:
    """What the program says about the next token.

    Attributes:
        logits: float32 [vocab], a copy.
        logsumexp: Natural logarithm of the sum of their exponentials.
        best: Id of the largest.
    """

    logits: Logits
    logsumexp: float
    best: int

    @classmethod
    def of(cls, logits: Logits) -> _Next:
        top = float(logits.max())
        total = float(np.exp(logits - np.float32(top), dtype=np.float32).sum(dtype=np.float64))
        return cls(logits.copy(), top + math.log(total), greedy(logits))

    def logprob(self, token: int) -> float:
        return float(self.logits[token]) - self.logsumexp


def score(asked: Score, step: Step, prefill_chunk: int) -> Scores:
    """Answer a request; continuations are visited in sorted order, each new token is fed once."""
    tokens = np.array(asked.token_ids, dtype=np.int64)
    path = _Path(step, asked.position + len(tokens))
    path.begin(prefill(step, tokens, asked.position, prefill_chunk))
    scored: dict[int, Scored] = {}
    numbered = enumerate(asked.continuations)
    for index, ids in sorted(numbered, key=lambda item: item[1]):
        scored[index] = path.follow(ids)
    return Scores(
        scored=tuple(scored[index] for index in range(len(scored))),
        fed_tokens=len(tokens) + path.fed,
    )


class _Path:
    """The tokens that the cache holds behind the context, with what follows each of them."""

    def __init__(self, step: Step, start: int) -> None:
        self._step = step
        self._start = start
        self._ids: list[int] = []
        self._next: list[_Next] = []
        self.fed = 0

    def begin(self, logits: Logits) -> None:
        self._next.append(_Next.of(logits))

    def follow(self, ids: tuple[int, ...]) -> Scored:
        """Return a continuation's likelihood; its last token is never fed."""
        self._rewind(_shared(self._ids, ids[:-1]))
        for token in ids[len(self._ids) : -1]:
            position = self._start + len(self._ids)
            self._next.append(_Next.of(self._step(np.array([token], dtype=np.int64), position)))
            self._ids.append(token)
            self.fed += 1
        pairs = list(zip(ids, self._next, strict=True))
        return Scored(
            logprobs=tuple(said.logprob(token) for token, said in pairs),
            greedy=all(said.best == token for token, said in pairs),
        )

    def _rewind(self, length: int) -> None:
        del self._ids[length:], self._next[length + 1 :]


def _shared(one: list[int], other: tuple[int, ...]) -> int:
    """Return how many tokens two sequences share at their beginning."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
