"""Attention with linear biases (Press et al. 2022, arXiv 2108.12409): the table of biases."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mobilepack.models.layer_spec import AlibiSpec

if TYPE_CHECKING:
    import torch


def alibi_table(alibi: AlibiSpec, heads: int, max_seq_len: int) -> torch.Tensor:
    """Return what is added to every score of a head at a key's position.

    The bias of the paper, slope * (key - query), differs from slope * key by the same number for
    all keys of a query, which the softmax does not see.

    Returns:
        float32 [heads, max_seq_len].
    """
    import torch

    slopes = torch.tensor(_slopes(alibi, heads), dtype=torch.float32).unsqueeze(1)
    positions = torch.arange(max_seq_len).unsqueeze(0)
    if alibi.kind == "falcon":
        # transformers 5.23 falcon `build_alibi_tensor` multiplies in bf16.
        return (slopes.bfloat16() * positions).float() * alibi.scale
    return slopes * positions * alibi.scale


def _slopes(alibi: AlibiSpec, heads: int) -> list[float]:
    """Return each head's slope: section 3 of the paper, and its code beyond powers of two.

    transformers 5.23 `build_alibi_tensor` of bloom and falcon continue with every second slope of
    twice as many heads; mpt's takes the slopes of the next power of two, every second one first.
    """
    if alibi.kind == "mpt":
        above = 2 ** math.ceil(math.log2(heads))
        slopes = [2.0 ** (-i * alibi.bias_max / above) for i in range(1, above + 1)]
        return slopes if above == heads else [*slopes[1::2], *slopes[::2]][:heads]
    below = 2 ** math.floor(math.log2(heads))
    first = [2.0 ** (-i * alibi.bias_max / below) for i in range(1, below + 1)]
    extra = [2.0 ** (-i * alibi.bias_max / (2 * below)) for i in range(1, 2 * below, 2)]
    return [*first, *extra][:heads]
