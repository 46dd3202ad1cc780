"""GPTQ: round column by column, and let later columns make up for what was lost.

Frantar et al. 2022 (arXiv 2210.17323), algorithm 1: with H the second moments of a linear map's
inputs and U the upper Cholesky factor of its inverse, the error of column i, divided by U_ii, times
U_ij is taken off every later column j. Blocks of columns are finished before the rest is touched,
so most of the work is matrix products. Rows do not influence one another, so they may come in
pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mobilepack.models.compression.scales import best_scales
from mobilepack.models.quantization import INT4_HIGH, INT4_LOW, QuantisedRows

DAMPING = 0.01  # of the mean diagonal; section 4 of the paper, "dampening"
_BLOCK = 128  # columns; a multiple of every group size


@dataclass(frozen=True, slots=True)
class Curvature:
    """What the inputs of a linear map say about its weights.

    Attributes:
        importance: Mean square of each input channel, damped, float32 `[columns]`.
        factor: Upper Cholesky factor of the inverse of their second moments, `[columns, columns]`.
    """

    importance: torch.Tensor
    factor: torch.Tensor

    @classmethod
    def of(cls, inputs: torch.Tensor) -> Curvature:
        """Compute it from inputs `[tokens, columns]`."""
        moments = (inputs.T @ inputs / len(inputs)).double()
        diagonal = moments.diagonal()
        diagonal += DAMPING * diagonal.mean().clamp(min=1e-12)
        lower = torch.linalg.cholesky(moments)
        factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
        return cls(diagonal.float(), factor.float())


def gptq(
    rows: torch.Tensor, curvature: Curvature, group: int, *, keep_zeros: bool = False
) -> QuantisedRows:
    """Quantise float32 `[rows, columns]` to int4 with a scale per group.

    A group's scale is chosen from its columns as they are when their turn comes.

    Args:
        rows: Weights; not changed.
        curvature: Of this map's inputs.
        group: Columns per scale; divides 128.
        keep_zeros: Leave weights that are exactly zero (pruned ones) at zero.
    """
    left = rows.clone()
    count, columns = rows.shape
    pruned = rows == 0 if keep_zeros else None
    importance = curvature.importance.view(-1, group)
    values = torch.empty(count, columns, dtype=torch.int8)
    scales = torch.empty(count, columns // group)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = torch.empty(count, stop - start)
        factor = curvature.factor[start:stop]
        for begin in range(start, stop, group):
            index = begin // group
            block = left[:, begin : begin + group]
            scale = best_scales(block.unsqueeze(1), importance[index : index + 1])[:, 0]
            scales[:, index] = scale
            for column in range(begin, begin + group):
                value = (left[:, column] / scale).round_().clamp_(INT4_LOW, INT4_HIGH)
                if pruned is not None:
                    value.masked_fill_(pruned[:, column], 0.0)
                values[:, column] = value.to(torch.int8)
                at = column - start
                error = (left[:, column] - value * scale) / factor[at, column]
                left[:, column + 1 : stop] -= torch.outer(error, factor[at, column + 1 : stop])
                errors[:, at] = error
        left[:, stop:] -= errors @ factor[:, stop:]
    return QuantisedRows(values, scales)
