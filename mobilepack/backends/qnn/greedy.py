"""The text that the fake-quantised model says: what a program is asked to repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mobilepack.backends.qnn.request import LowerRequest
from mobilepack.contract.reference import GreedyReference
from mobilepack.models.static_session import StaticSession

GREEDY_TOKENS = 24

Feed = Callable[[tuple[int, ...]], npt.NDArray[Any]]
"""Puts a prompt into an empty session; returns its last token's logits [V]."""


def greedy_text(
    request: LowerRequest, session: StaticSession, feed: Feed
) -> tuple[GreedyReference, ...]:
    """Continue half of the first passage; nothing if no position is left for a token.

    Args:
        session: Of the fake-quantised model, in floats.
        feed: Given half of the passage.
    """
    _, ids = request.passages[0]
    prompt = ids[: len(ids) // 2 + 1]
    length = min(GREEDY_TOKENS, request.max_seq_len - len(prompt))
    if length < 1:
        return ()
    logits = feed(prompt)
    said: list[int] = []
    gaps: list[float] = []
    for at in range(len(prompt), len(prompt) + length):
        best = torch.from_numpy(logits).topk(2)
        said.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        if len(said) < length:
            logits = session(np.array(said[-1:]), at)
    return (
        GreedyReference(
            name="greedy",
            variant="quantised",
            prompt_ids=prompt,
            token_ids=tuple(said),
            gaps=tuple(gaps),
        ),
    )
