"""What the backends of fixed shapes ask of a model, and of the text its reference is made from."""

from __future__ import annotations

from collections.abc import Sequence

from mobilepack.errors import UsageError
from mobilepack.models.spec import DecoderSpec
from mobilepack.pipeline.reference import Passage

PASSAGE_TOKENS = (49, 34)
"""A prefill of an odd half and 32 decode steps fit into either."""


def check_plain(spec: DecoderSpec, target: str) -> None:
    """Refuse models that have the dynamic form only.

    Raises:
        UsageError: A block has experts, a recurrent state or latent attention.
    """
    if not spec.is_plain:
        raise UsageError(
            "static-family",
            f"cannot build a {spec.family} model for {target}",
            why="it has experts, recurrent states or latent attention, and this target is for"
            " attention and feed-forward blocks",
            next="build it for the CPU: --target xnnpack",
        )


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
