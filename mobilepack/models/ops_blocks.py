"""Composite operators on blocks of channels (heads), each with a plain torch definition."""

from __future__ import annotations

import torch


@torch.library.custom_op("mobilepack::block_linear", mutates_args=())
def block_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, blocks: int, transposed: bool
) -> torch.Tensor:
    """Multiply each block of channels by its own matrix, in float32.

    Args:
        x: `[1, seq, blocks * width]`, or `[1, blocks * width]`.
        weight: `[blocks * in, out]`; if transposed `[blocks * out, in]`.
        bias: `[blocks * out]`.
        blocks: How many there are.
        transposed: Whether a matrix is `[out, in]`; of each block the first `in` channels count.

    Returns:
        `[1, seq, blocks * out]`, or `[1, blocks * out]`.
    """
    matrices = weight.view(blocks, -1, weight.shape[1])
    matrices = matrices.transpose(1, 2) if transposed else matrices
    parts = x.unflatten(-1, (blocks, -1))[..., : matrices.shape[1]].unsqueeze(-2)
    mixed: torch.Tensor = (parts @ matrices).squeeze(-2).flatten(-2)
    return mixed if bias is None else mixed + bias


@block_linear.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, blocks: int, transposed: bool
) -> torch.Tensor:
    out = weight.shape[0] if transposed else blocks * weight.shape[1]
    return x.new_empty((*x.shape[:-1], out))


@torch.library.custom_op("mobilepack::join_heads", mutates_args=())
def join_heads(first: torch.Tensor, second: torch.Tensor, heads: int) -> torch.Tensor:
    """Join two tensors head by head, `[1, seq, heads * a]` and `[1, seq, heads * b]`."""
    parts = [part.unflatten(-1, (heads, -1)) for part in (first, second)]
    return torch.cat(parts, -1).flatten(-2)


@join_heads.register_fake
def _(first: torch.Tensor, second: torch.Tensor, heads: int) -> torch.Tensor:
    return first.new_empty((*first.shape[:-1], first.shape[-1] + second.shape[-1]))
