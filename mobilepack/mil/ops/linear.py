"""Matrix products, attention and einsum. fp16 products are summed in fp32 and rounded once."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.ops.registry import Tensors, operator


@operator("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x @ weight.T + bias; weight: [out, in]."""
    if not x.is_floating_point():
        return x @ weight.mT + (0 if bias is None else bias)
    return functional.linear(x, weight, bias)


@operator("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Multiply matrices, broadcasting the axes before the last two."""
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


@operator("einsum")
def einsum(values: Tensors, equation: str) -> Tensor:
    """Multiply and sum as the equation says; axes of size 1 broadcast."""
    x, y = values
    letters = equation.replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(letters, values, strict=True):
        for letter, size in zip(term, value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    x = x.expand([sizes[letter] for letter in letters[0]])
    y = y.expand([sizes[letter] for letter in letters[1]])
    return torch.einsum(equation, x, y)


@operator("scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Compute softmax(query @ key.T / sqrt(E) + mask) @ value.

    Args:
        query: [..., L, E].
        key: [..., S, E].
        value: [..., S, V].
        attn_mask: Broadcasts to [..., L, S]; boolean (False: not attended) or added.
    """
    scores = torch.matmul(query, key.mT) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)
