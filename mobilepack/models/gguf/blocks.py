"""From the blocks of quantised tensors to float32, many blocks at a time.

Every function takes uint8 `[blocks, bytes]` and returns float32 `[blocks, numbers]`, computing in
the order of ggml-quants.c `dequantize_row_*`, so that results are equal bit by bit. Layouts are
those of ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

Blocks = torch.Tensor

_IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the sixteen codes of IQ4_NL and IQ4_XS stand for (ggml-common.h `kvalues_iq4nl`)."""


def _half(raw: torch.Tensor) -> torch.Tensor:
    """Return fp16 numbers as float32 `[blocks, 1]`."""
    return raw.contiguous().view(torch.float16).float()


def _bits(raw: torch.Tensor, run: int, width: int) -> torch.Tensor:
    """Unpack bytes that hold several numbers each.

    Of every run of bytes the lowest `width` bits of all come first, then the next ones.

    Args:
        raw: uint8 `[blocks, bytes]`.
        run: Bytes per run.
        width: Bits per number.
    """
    shifts = torch.arange(0, 8, width, dtype=torch.uint8).view(1, 1, -1, 1)
    parts: torch.Tensor = (raw.reshape(len(raw), -1, 1, run) >> shifts) & (2**width - 1)
    return parts.flatten(1)


def _scaled(
    scales: torch.Tensor, codes: torch.Tensor, minima: torch.Tensor | None = None
) -> torch.Tensor:
    """Return scale * code - minimum, each scale and minimum for equally many codes."""
    count = codes.shape[1] // scales.shape[1]
    result = codes.float().view(len(codes), -1, count) * scales.unsqueeze(-1)
    if minima is not None:
        result -= minima.unsqueeze(-1)
    return result.flatten(1)


def codes_q4_0(raw: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """Return integers int8 `[blocks, 32]` in [-8, 7] and float32 scales `[blocks, 1]`."""
    return _bits(raw[:, 2:], 16, 4).to(torch.int8) - 8, _half(raw[:, :2])


def _q4_0(raw: Blocks) -> torch.Tensor:
    codes, scale = codes_q4_0(raw)
    return _scaled(scale, codes)


def _q4_1(raw: Blocks) -> torch.Tensor:
    return _bits(raw[:, 4:], 16, 4).float() * _half(raw[:, :2]) + _half(raw[:, 2:4])


def _five(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Join four low bits with the fifth, whose 32 bits lie in the order of the numbers."""
    shifts = torch.arange(8, dtype=torch.uint8)
    fifth = ((high.unsqueeze(-1) >> shifts) & 1).flatten(1)
    return _bits(low, 16, 4) | (fifth << 4)


def _q5_0(raw: Blocks) -> torch.Tensor:
    return _scaled(_half(raw[:, :2]), _five(raw[:, 6:], raw[:, 2:6]).to(torch.int8) - 16)


def _q5_1(raw: Blocks) -> torch.Tensor:
    return _five(raw[:, 8:], raw[:, 4:8]).float() * _half(raw[:, :2]) + _half(raw[:, 2:4])


def _q8_0(raw: Blocks) -> torch.Tensor:
    return _scaled(_half(raw[:, :2]), raw[:, 2:].view(torch.int8))


def _q2_k(raw: Blocks) -> torch.Tensor:
    scales, codes = raw[:, :16], _bits(raw[:, 16:80], 32, 2)
    step, low = _half(raw[:, 80:82]), _half(raw[:, 82:84])
    return _scaled(step * (scales & 15).float(), codes, low * (scales >> 4).float())


def _q3_k(raw: Blocks) -> torch.Tensor:
    low, packed = _bits(raw[:, 32:96], 32, 2), raw[:, 96:108]
    high = _bits(raw[:, :32], 32, 1)
    scales = _bits(packed[:, :8], 8, 4) | (_bits(packed[:, 8:], 4, 2) << 4)
    step = _half(raw[:, 108:]) * (scales.to(torch.int8) - 32).float()
    return _scaled(step, (low | (high << 2)).to(torch.int8) - 4)


def _scales_and_minima(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unpack the 6-bit numbers of Q4_K and Q5_K, eight scales and eight minima in 12 bytes.

    The first four of each are the low six bits of bytes 0-3 and 4-7; the others have their low four
    bits in the nibbles of bytes 8-11 and their upper two on top of the first eight bytes.
    """
    scale, minimum, rest = raw[:, :4], raw[:, 4:8], raw[:, 8:]
    scales = torch.cat((scale & 63, (rest & 15) | ((scale >> 6) << 4)), 1)
    minima = torch.cat((minimum & 63, (rest >> 4) | ((minimum >> 6) << 4)), 1)
    return scales.float(), minima.float()


def _k_blocks(raw: Blocks, codes: torch.Tensor) -> torch.Tensor:
    scales, minima = _scales_and_minima(raw[:, 4:16])
    return _scaled(_half(raw[:, :2]) * scales, codes, _half(raw[:, 2:4]) * minima)


def _q4_k(raw: Blocks) -> torch.Tensor:
    return _k_blocks(raw, _bits(raw[:, 16:], 32, 4))


def _q5_k(raw: Blocks) -> torch.Tensor:
    return _k_blocks(raw, _bits(raw[:, 48:], 32, 4) | (_bits(raw[:, 16:48], 32, 1) << 4))


def _q6_k(raw: Blocks) -> torch.Tensor:
    codes = _bits(raw[:, :128], 64, 4) | (_bits(raw[:, 128:192], 32, 2) << 4)
    step = _half(raw[:, 208:]) * raw[:, 192:208].view(torch.int8).float()
    return _scaled(step, codes.to(torch.int8) - 32)


def _iq4(codes: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_IQ4_VALUES, dtype=torch.float32)[codes.int()]


def _iq4_nl(raw: Blocks) -> torch.Tensor:
    return _scaled(_half(raw[:, :2]), _iq4(_bits(raw[:, 2:], 16, 4)))


def _iq4_xs(raw: Blocks) -> torch.Tensor:
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
    high = ((raw[:, 2:4].unsqueeze(-1) >> shifts) & 3).flatten(1)
    scales = _bits(raw[:, 4:8], 1, 4) | (high << 4)
    step = _half(raw[:, :2]) * (scales.to(torch.int8) - 32).float()
    return _scaled(step, _iq4(_bits(raw[:, 8:], 16, 4)))


DEQUANTISERS: Mapping[str, Callable[[Blocks], torch.Tensor]] = MappingProxyType(
    {
        "F32": lambda raw: raw.view(torch.float32),
        "F16": lambda raw: raw.view(torch.float16),
        "BF16": lambda raw: raw.view(torch.bfloat16),
        "F64": lambda raw: raw.view(torch.float64),
        "Q4_0": _q4_0,
        "Q4_1": _q4_1,
        "Q5_0": _q5_0,
        "Q5_1": _q5_1,
        "Q8_0": _q8_0,
        "Q2_K": _q2_k,
        "Q3_K": _q3_k,
        "Q4_K": _q4_k,
        "Q5_K": _q5_k,
        "Q6_K": _q6_k,
        "IQ4_NL": _iq4_nl,
        "IQ4_XS": _iq4_xs,
    }
)
"""By the type's name; floating-point types come back as they are, `copy_` converts them."""
