"""Choose the scale of each group of int4 weights by the error it leaves."""

from __future__ import annotations

import torch

from mobilepack.models.quantization import INT4_HIGH, INT4_LOW

DIVISORS = (6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0)
"""The largest weight of a group over these are the scales that are tried. 7.5 is plain rounding's
(models/quantization.py); above it the largest weight is clipped. On the embedded model finer or
wider grids change the perplexity by less than its noise (docs/compression.md)."""


def best_scales(blocks: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Return the scale of each group with the smallest squared error.

    Args:
        blocks: float32 `[rows, groups, columns of a group]`.
        importance: Weight of each column's error, `[groups, columns of a group]`; None: equal.

    Returns:
        float32 `[rows, groups]`, each a bf16 number, as the file stores it.
    """
    largest = blocks.abs().amax(-1, keepdim=True)
    candidates = (largest / blocks.new_tensor(DIVISORS)).clamp_(min=1e-30)
    scales = candidates.to(torch.bfloat16).float()  # [rows, groups, candidates]
    values = (blocks.unsqueeze(-2) / scales.unsqueeze(-1)).round_().clamp_(INT4_LOW, INT4_HIGH)
    errors = (blocks.unsqueeze(-2) - values * scales.unsqueeze(-1)).pow_(2)
    if importance is not None:
        errors *= importance.unsqueeze(-2)
    chosen = errors.sum(-1).argmin(-1, keepdim=True)
    return scales.gather(-1, chosen).squeeze(-1)


def round_to(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return the int8 `[rows, columns]` nearest to blocks under given scales."""
    values = (blocks / scales.unsqueeze(-1)).round_().clamp_(INT4_LOW, INT4_HIGH)
    return values.to(torch.int8).flatten(1)
