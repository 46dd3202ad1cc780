"""What the backends of fixed shapes ask of a model, and of the text its reference is made from."""

from __future__ import annotations

from collections.abc import Sequence

from mobilepack.pipeline.reference import Passage

PASSAGE_TOKENS = (49, 34)
"""A prefill of an odd half and 32 decode steps fit into either."""


def static_passages(passages: Sequence[Passage], max_seq_len: int) -> tuple[Passage, ...]:
    """Return the passages of another target's reference, cut anew for decode steps."""
    ids = [i for passage in passages for i in passage.token_ids]
    # Of few tokens more than half go to the first, if that makes 32 decode steps after a prefill.
    half = max(len(ids) // 2, min(33, len(ids) - 16))
    first = min(PASSAGE_TOKENS[0], max_seq_len, half)
    second = min(PASSAGE_TOKENS[1], max_seq_len, len(ids) - first)
    return (
        Passage("first", tuple(ids[:first])),
        Passage("second", tuple(ids[first : first + second])),
    )
