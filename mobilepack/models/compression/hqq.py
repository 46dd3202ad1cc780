"""HQQ: choose scales without data, by a norm of the error that forgives outliers.

Badri and Shaji 2023 ("Half-Quadratic Quantization of Large Machine Learning Models"): minimise the
l_p norm (p < 1) of the error by half-quadratic splitting. Their free variable is the zero point;
the grid here is symmetric, so it is the scale: alternately the errors are shrunk towards zero
(generalised soft threshold, their equation 4) and the scale is fitted to what is left by least
squares.
"""

from __future__ import annotations

import torch

from mobilepack.models.compression.scales import round_to
from mobilepack.models.quantization import INT4_HIGH, INT4_LOW, QuantisedRows, quantise_int4

# the values of hqq 0.2's optimize_weights_proximal_legacy
_P = 0.7
_BETA, _BETA_GROWTH = 10.0, 1.01
_STEPS = 20


def hqq(rows: torch.Tensor, group: int) -> QuantisedRows:
    """Quantise float32 `[rows, columns]` to int4 with a scale per group."""
    start = quantise_int4(rows, group)
    blocks = rows.view(rows.shape[0], -1, group)
    unit = start.scales.unsqueeze(-1)
    found = _fit(blocks / unit) * unit.squeeze(-1)  # in units of the plain scale: beta has no unit
    scales = found.to(torch.bfloat16).float()
    return QuantisedRows(round_to(blocks, scales), scales)


def _fit(blocks: torch.Tensor) -> torch.Tensor:
    """Return the scale `[rows, groups]` of blocks that a scale of 1 nearly fits."""
    scale = torch.ones(blocks.shape[:-1])
    best, best_error = scale, torch.full(scale.shape, torch.inf)
    beta = _BETA
    for _ in range(_STEPS):
        values = (blocks / scale.unsqueeze(-1)).round_().clamp_(INT4_LOW, INT4_HIGH)
        error = blocks - values * scale.unsqueeze(-1)
        norm = error.abs().pow(_P).sum(-1)
        better = norm < best_error
        best, best_error = torch.where(better, scale, best), torch.where(better, norm, best_error)
        target = blocks - _shrink(error, beta)
        energy = (values * values).sum(-1)
        fitted = (values * target).sum(-1) / energy.clamp(min=1.0)
        scale = torch.where(energy > 0, fitted, scale).clamp_(0.5, 2.0)
        beta *= _BETA_GROWTH
    return best


def _shrink(error: torch.Tensor, beta: float) -> torch.Tensor:
    size = error.abs()
    threshold = size.clamp(min=1e-8).pow(_P - 1) / beta
    return error.sign() * (size - threshold).clamp_(min=0)
