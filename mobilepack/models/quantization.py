"""Round-to-nearest quantisation of weights and activations, and its exact inverse.

One definition serves the file writer (which packs the integers) and the quantised eager model
(which computes with the same integers), so that a package can be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

INT4_LOW, INT4_HIGH = -8, 7


@dataclass(frozen=True, slots=True)
class QuantisedRows:
    """Rows of a weight matrix as integers and scales.

    Attributes:
        values: int8 `[rows, columns]`.
        scales: float32 `[rows, columns / group]`.
    """

    values: torch.Tensor
    scales: torch.Tensor

    def dequantise(self) -> torch.Tensor:
        """Return float32 `[rows, columns]`."""
        rows, columns = self.values.shape
        groups = self.values.float().view(rows, self.scales.shape[1], -1)
        return (groups * self.scales.unsqueeze(-1)).view(rows, columns)


def quantise_int4(rows: torch.Tensor, group: int) -> QuantisedRows:
    """Quantise float32 `[rows, columns]` symmetrically to [-8, 7] with a scale per group.

    The scale is max|w| / 7.5 (torchao 0.18, `MappingType.SYMMETRIC`), rounded to bf16, which is
    what the file stores, BEFORE the division, so that the integers fit the scale that is used.
    """
    blocks = rows.view(rows.shape[0], -1, group)
    scales = blocks.abs().amax(-1).div_(7.5).clamp_(min=1e-30).to(torch.bfloat16).float()
    values = (blocks * scales.reciprocal().unsqueeze(-1)).round_().clamp_(INT4_LOW, INT4_HIGH)
    return QuantisedRows(values.to(torch.int8).view(rows.shape), scales)


def quantise_embedding4(rows: torch.Tensor, group: int) -> QuantisedRows:
    """Quantise like `quantise_int4`; the scales are kept in fp16, as the embedding kernel reads.

    A bf16 number of the size of a scale is exact in fp16, except below 6e-5 (fp16's subnormals);
    one above fp16's largest number (embeddings of half a million) is cut to it.
    """
    quantised = quantise_int4(rows, group)
    largest = torch.finfo(torch.float16).max
    return QuantisedRows(quantised.values, quantised.scales.clamp(max=largest).half().float())


def quantise_int8(rows: torch.Tensor) -> QuantisedRows:
    """Quantise float32 `[rows, columns]` symmetrically to [-127, 127] with a scale per row."""
    scales = rows.abs().amax(-1, keepdim=True).div_(127.0).clamp_(min=1e-30)
    values = (rows * scales.reciprocal()).round_().clamp_(-127, 127)
    return QuantisedRows(values.to(torch.int8), scales)


SMALLEST_KV_SCALE = 1e-12
"""Of a key or value that is all zeros, which must not be divided by zero."""


def fake_quantise_heads(x: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Round keys or values `[..., heads * head_dim]` as an int8 cache does, one scale per head.

    The scale is the largest magnitude; stored is round(127 * x / scale).
    """
    heads = x.unflatten(-1, (-1, head_dim))
    scales = heads.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_KV_SCALE)
    rounded: torch.Tensor = (heads / scales * 127).round() / 127 * scales
    return rounded.flatten(-2)


def quantise(rows: torch.Tensor, encoding: str, group: int) -> QuantisedRows:
    """Quantise rows for a storage encoding of `backends/xnnpack/layout.py`."""
    if encoding == "int4":
        return quantise_int4(rows, group)
    if encoding == "embedding4":
        return quantise_embedding4(rows, group)
    if encoding == "int8":
        return quantise_int8(rows)
    raise ValueError(f"no such encoding: {encoding}")


@runtime_checkable
class Rounding(Protocol):
    """Parameters that say themselves how they are rounded."""

    def quantised(
        self, name: str, rows: torch.Tensor, start: int, encoding: str, group: int
    ) -> QuantisedRows:
        """Return rows from `start` on as integers and scales; see `quantised_rows`."""


def quantised_rows(
    source: object, name: str, rows: torch.Tensor, start: int, encoding: str, group: int
) -> QuantisedRows:
    """Return rows of a parameter as integers and scales: to nearest, or as its source says.

    Whoever quantises a parameter asks here, so that the file, the eager reference and ExecuTorch's
    own lowering get the same integers.

    Args:
        source: Where the parameter comes from; calibrated weights have `Rounding`.
        name: The parameter.
        rows: Float32 rows that were read from it.
        start: Number of the first of them.
        encoding: As in `quantise`.
        group: As in `quantise`.
    """
    if isinstance(source, Rounding):
        return source.quantised(name, rows, start, encoding, group)
    return quantise(rows, encoding, group)


def fake_quantise_activations(x: torch.Tensor) -> torch.Tensor:
    """Round the last axis to int8 as XNNPACK's dynamic quantisation does, scale per row.

    The range always holds zero; scale = (max - min) / 255, zero point rounded
    (XNNPACK `xnn_f32_qd8_asymmetric_quantization_params`, src/xnnpack/quantization.h).
    """
    low = x.amin(-1, keepdim=True).clamp(max=0)
    high = x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    zero_point = (-128 - (low / scale).round()).clamp(-128, 127)
    values = ((x / scale).round() + zero_point).clamp(-128, 127)
    return (values - zero_point) * scale
