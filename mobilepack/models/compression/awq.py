"""AWQ: give channels with large inputs finer steps, by scaling them before rounding.

Lin et al. 2023 (arXiv 2306.00978), section 3.2: input channels are scaled by the mean magnitude of
what they carry to a power between 0 and 1, the power that leaves the smallest error of the output;
whatever makes the channels is divided by the same (`fold.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from mobilepack.models.compression.scales import best_scales, round_to
from mobilepack.models.quantization import QuantisedRows, fake_quantise_activations

POWERS = tuple(index / 10 for index in range(10))
SAMPLE_TOKENS = 512
"""Tokens that a power is judged by; the statistics use all."""

ReadRows = Callable[[], Iterable[tuple[torch.Tensor, int]]]
"""Yields rows of each weight that reads the channels, with the weight's columns per scale."""


def rounded(rows: torch.Tensor, importance: torch.Tensor, group: int) -> QuantisedRows:
    """Round float32 `[rows, columns]` to int4 with the scales that suit important columns best."""
    blocks = rows.view(rows.shape[0], -1, group)
    scales = best_scales(blocks, importance.view(-1, group))
    return QuantisedRows(round_to(blocks, scales), scales)


def best_channel_scale(
    inputs: torch.Tensor, weights: ReadRows, shared: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return the channels' scale with the smallest error of the outputs, float32 `[columns]`.

    Args:
        inputs: What the maps are fed, float32 `[tokens, columns]`.
        weights: Read again for every power.
        shared: Makes a scale equal where channels must have the same.
    """
    magnitude = inputs.abs().mean(0).clamp(min=1e-6)
    sample = inputs[:: max(1, len(inputs) // SAMPLE_TOKENS)]
    best, best_error = torch.ones_like(magnitude), float("inf")
    for power in POWERS:
        scale = shared(magnitude.pow(power))
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = _error(sample, weights, scale)
        if error < best_error:
            best, best_error = scale, error
    return best


def _error(sample: torch.Tensor, weights: ReadRows, scale: torch.Tensor) -> float:
    fed = fake_quantise_activations(sample / scale)
    importance = (sample / scale).pow(2).mean(0)
    total = 0.0
    for rows, group in weights():
        stored = rounded(rows * scale, importance, group).dequantise()
        total += float((fed @ stored.T - sample @ rows.T).pow(2).sum())
    return total
