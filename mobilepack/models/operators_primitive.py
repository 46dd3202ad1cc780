"""Norms and rotations in primitive torch, as more than one form of the decoder computes them."""

from __future__ import annotations

import torch

from mobilepack.models.operators import OptionalTensor, Tensor

HIDDEN = -1e9
"""Added to a score that must not count: exp(-1e9) is 0 in float32."""


class Primitive:
    """Steps over activations `[..., seq, channels]` that no form needs in another way."""

    @staticmethod
    def rms_norm(x: Tensor, weight: OptionalTensor, eps: float) -> Tensor:
        normed = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
        return normed if weight is None else normed * weight

    @staticmethod
    def layer_norm(x: Tensor, weight: OptionalTensor, bias: OptionalTensor, eps: float) -> Tensor:
        normed = Primitive.rms_norm(x - x.mean(-1, keepdim=True), weight, eps)
        return normed if bias is None else normed + bias

    @staticmethod
    def head_norm(
        x: Tensor,
        weight: OptionalTensor,
        bias: OptionalTensor,
        groups: int,
        eps: float,
        centred: bool,
    ) -> Tensor:
        split = by_heads(x, groups)
        size = split.shape[-1]
        weight = None if weight is None else weight.view(-1, size)
        if not centred:
            return Primitive.rms_norm(split, weight, eps).flatten(-2)
        bias = None if bias is None else bias.view(-1, size)
        return Primitive.layer_norm(split, weight, bias, eps).flatten(-2)


def by_heads(x: Tensor, heads: int) -> Tensor:
    """Return `[..., seq, channels]` as `[..., seq, heads, head_dim]`."""
    split: Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads))
    return split


def turned(x: Tensor, cos: Tensor, sin: Tensor, heads: int, interleaved: bool) -> Tensor:
    """Return `[..., seq, channels]` with the first channels of each head rotated.

    Args:
        x: Queries or keys.
        cos: Of each position and pair, `[seq, 1, pairs]`; channels beyond the pairs stay.
        sin: Likewise.
        heads: In `channels`.
        interleaved: Whether a pair's channels are neighbours, not half a rotation apart.
    """
    half = cos.shape[-1]
    split = by_heads(x, heads)
    pairs, rest = split[..., : 2 * half], split[..., 2 * half :]
    pairs = pairs.unflatten(-1, (half, 2) if interleaved else (2, half))
    axis = -1 if interleaved else -2
    a, b = pairs.select(axis, 0), pairs.select(axis, 1)
    rotated = torch.stack([a * cos - b * sin, b * cos + a * sin], axis).flatten(-2)
    parts = [rotated, *([rest] if rest.shape[-1] else [])]
    return torch.cat(parts, -1).flatten(-2)
