"""Rotary position embedding: the frequencies of every scaling kind, and the tables made of them.

The arithmetic follows transformers 5.23 `modeling_rope_utils.py` operation by operation in
float32, so that the tables are equal bit for bit; tests hold it to that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mobilepack.errors import UsageError
from mobilepack.models.layer_spec import RopeSpec

if TYPE_CHECKING:
    import torch


def rope_tables(rope: RopeSpec, max_seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines of every position, both float32 [max_seq_len, dim/2].

    The attention factor (YaRN, arXiv 2309.00071 section 3.4) is multiplied in, as transformers
    does. Channel i is rotated together with channel i + dim/2 (the half-split layout).
    """
    import torch

    frequencies, factor = inverse_frequencies(rope, max_seq_len)
    positions = torch.arange(max_seq_len, dtype=torch.float32)
    angles = positions[:, None] * frequencies
    return angles.cos() * factor, angles.sin() * factor


def inverse_frequencies(rope: RopeSpec, max_seq_len: int) -> tuple[torch.Tensor, float]:
    """Return the angle per position of every channel pair, and the attention factor.

    Args:
        rope: Kind and numbers.
        max_seq_len: Longest sequence that will be run.

    Returns:
        float32 [dim/2], fastest first, and the factor that multiplies cosines and sines.

    Raises:
        UsageError: A dynamic kind is asked for more positions than the model was trained for.
    """
    numbers = dict(rope.parameters)
    if rope.kind == "dynamic":
        _check_dynamic(numbers, max_seq_len)
    if rope.kind == "yarn":
        return _yarn(rope, numbers)
    if rope.kind == "longrope":
        return _longrope(rope, numbers, max_seq_len)
    base = _default(rope)
    if rope.kind == "linear":
        # Position interpolation, arXiv 2306.15595 section 3.1, applied to the frequencies.
        return base / numbers["factor"], 1.0
    if rope.kind == "llama3":
        return _llama3(base, numbers), 1.0
    return base, 1.0


def _exponents(dim: int) -> torch.Tensor:
    import torch

    return torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim


def _default(rope: RopeSpec) -> torch.Tensor:
    """RoFormer, arXiv 2104.09864 section 3.2.2: theta ** (-2i / dim)."""
    return 1.0 / rope.theta ** _exponents(rope.dim)


def _check_dynamic(numbers: dict[str, float], max_seq_len: int) -> None:
    """Refuse what a fixed table cannot express.

    Dynamic NTK leaves the frequencies alone up to the trained length and recomputes them for
    every longer length (transformers 5.23 `dynamic_frequency_update`). Keys that are already in
    the cache would have to be rotated again, which neither a program with fixed tables nor
    transformers does; rather than pick one of its results, longer sequences are refused.
    """
    trained = int(numbers["max_position_embeddings"])
    if max_seq_len > trained:
        raise UsageError(
            "rope-dynamic-length",
            f"cannot build for {max_seq_len} positions",
            why=f"this model scales its positions dynamically beyond {trained}, "
            "so the frequencies would change from token to token",
            next=f"use --max-seq-len {trained} or less",
        )


def _longrope(
    rope: RopeSpec, numbers: dict[str, float], max_seq_len: int
) -> tuple[torch.Tensor, float]:
    """LongRoPE, arXiv 2402.13753: every pair's frequency is divided by a searched factor.

    transformers 5.23 takes the long factors as soon as a sequence outgrows the original length,
    and would have to rotate the keys in its cache again (Phi-3's own code drops the cache there).
    A program's tables are fixed, so its longest sequence decides: up to the original length the
    short factors, beyond it the long ones for every sequence (as llama.cpp decides by its context).
    """
    import torch

    original = numbers["original_max_position_embeddings"]
    longer = max_seq_len > original
    factors = rope.long if longer else rope.short
    divisors = torch.tensor(factors, dtype=torch.float32)
    inverse = 1.0 / (divisors * rope.theta ** _exponents(rope.dim))
    given, factor = numbers.get("attention_factor"), numbers["factor"]
    # Phi-3.5-MoE names the factor on cosines and sines for either side.
    given = numbers.get("long_mscale" if longer else "short_mscale", given)
    if given is not None:
        return inverse, given
    scale = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    return inverse, scale


def _llama3(base: torch.Tensor, numbers: dict[str, float]) -> torch.Tensor:
    """Llama 3.1's rule (meta-llama/llama-models `apply_scaling`).

    Wavelengths longer than the low-frequency bound are divided by the factor, those shorter than
    the high-frequency bound stay, and those between are interpolated.
    """
    import torch

    factor, old_length = numbers["factor"], numbers["original_max_position_embeddings"]
    low, high = numbers["low_freq_factor"], numbers["high_freq_factor"]
    wavelength = 2 * math.pi / base
    scaled = torch.where(wavelength > old_length / low, base / factor, base)
    smooth = (old_length / wavelength - low) / (high - low)
    between = (1 - smooth) * scaled / factor + smooth * scaled
    medium = ~(wavelength < old_length / high) & ~(wavelength > old_length / low)
    return torch.where(medium, between, scaled)


def _yarn(rope: RopeSpec, numbers: dict[str, float]) -> tuple[torch.Tensor, float]:
    """YaRN, arXiv 2309.00071 section 3.2 (NTK by parts) and 3.4 (attention factor)."""
    import torch

    factor = numbers["factor"]
    frequencies = rope.theta ** _exponents(rope.dim)
    low, high = _yarn_range(rope, numbers)
    ramp = (torch.arange(rope.dim // 2, dtype=torch.float32) - low) / (high - low)
    # Written as transformers writes it: 1 - (1 - x) is not x in float32.
    extrapolated = 1 - ramp.clamp(0, 1)
    inverse = 1.0 / (factor * frequencies) * (1 - extrapolated) + 1.0 / frequencies * extrapolated
    return inverse, _yarn_attention_factor(numbers)


def _yarn_range(rope: RopeSpec, numbers: dict[str, float]) -> tuple[float, float]:
    """Return the channel pairs between which interpolation takes over, by rotations made.

    The defaults 32 and 1 are the paper's (section 3.2, for Llama models).
    """
    length = numbers["original_max_position_embeddings"]

    def pair_with(rotations: float) -> float:
        return (rope.dim * math.log(length / (rotations * 2 * math.pi))) / (
            2 * math.log(rope.theta)
        )

    low = pair_with(numbers.get("beta_fast") or 32.0)
    high = pair_with(numbers.get("beta_slow") or 1.0)
    if numbers.get("truncate", 1.0):
        low, high = float(math.floor(low)), float(math.ceil(high))
    low, high = max(low, 0.0), min(high, rope.dim - 1.0)
    # 0.001 keeps the ramp finite, as in transformers' linear_ramp_factor.
    return low, high + 0.001 if low == high else high


def _yarn_attention_factor(numbers: dict[str, float]) -> float:
    """Return what is given, else DeepSeek's ratio with mscale, else 0.1 ln(factor) + 1 (3.4)."""
    given = numbers.get("attention_factor")
    if given is not None:
        return given
    factor = numbers["factor"]

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    mscale, mscale_all = numbers.get("mscale"), numbers.get("mscale_all_dim")
    return scale(mscale) / scale(mscale_all) if mscale and mscale_all else scale(1.0)
