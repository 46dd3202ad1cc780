"""Quantise rows as llama.cpp stores them: by the gguf package, or by hand where it cannot."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def quantised(rows: Floats, kind: str) -> Bytes:
    """Return rows of any number of columns that the type allows as uint8 `[rows, bytes]`."""
    kinds = {"Q4_K": q4_k, "Q6_K": q6_k}
    if kind in kinds:
        return kinds[kind](rows)
    if kind == "F32":
        return rows.view(np.uint8)
    made = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
    return np.ascontiguousarray(made).view(np.uint8).reshape(len(rows), -1)


def dequantised(raw: Bytes, kind: str) -> Floats:
    """Return what the gguf package makes of rows of blocks."""
    if kind == "F32":
        return raw.view(np.float32)
    found = gguf.quants.dequantize(raw.reshape(-1), gguf.GGMLQuantizationType[kind])
    return np.asarray(found, dtype=np.float32).reshape(len(raw), -1)


def q4_k(rows: Floats) -> Bytes:
    """Round to Q4_K, simply: every group of 32 spans its own range (ggml-common.h block_q4_K)."""
    groups = rows.reshape(-1, 8, 32)
    low = np.minimum(groups.min(-1), 0)
    scale, low = (groups.max(-1) - low) / 15, -low
    step, low_step = (np.maximum(x.max(-1, keepdims=True) / 63, 1e-7) for x in (scale, low))
    step, low_step = (x.astype(np.float16) for x in (step, low_step))
    scales, lows = (
        np.clip(np.rint(x / y.astype(np.float32)), 0, 63).astype(np.uint8)
        for x, y in ((scale, step), (low, low_step))
    )
    used = np.maximum(step.astype(np.float32) * scales, 1e-9)[..., None]
    shift = (low_step.astype(np.float32) * lows)[..., None]
    codes = np.clip(np.rint((groups + shift) / used), 0, 15).astype(np.uint8)
    packed = np.concatenate(
        (
            scales[:, :4] | scales[:, 4:] >> 4 << 6,
            lows[:, :4] | lows[:, 4:] >> 4 << 6,
            scales[:, 4:] & 15 | (lows[:, 4:] & 15) << 4,
        ),
        1,
    )
    nibbles = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(len(groups), -1)
    blocks = np.concatenate((step.view(np.uint8), low_step.view(np.uint8), packed, nibbles), 1)
    return blocks.reshape(len(rows), -1)


def q6_k(rows: Floats) -> Bytes:
    """Round to Q6_K, simply: every group of 16 reaches its largest number (block_q6_K)."""
    groups = rows.reshape(-1, 16, 16)
    scale = np.abs(groups).max(-1) / 31
    step = np.maximum(scale.max(-1, keepdims=True) / 127, 1e-7).astype(np.float16)
    scales = np.clip(np.rint(scale / step.astype(np.float32)), 1, 127).astype(np.int8)
    used = step.astype(np.float32) * scales
    codes = np.clip(np.rint(groups / used[..., None]) + 32, 0, 63).astype(np.uint8)
    halves = codes.reshape(-1, 2, 4, 32)
    low = np.stack((halves[:, :, :2] & 15 | (halves[:, :, 2:] & 15) << 4,), 1)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1)
    high = np.bitwise_or.reduce(halves >> 4 << shifts, axis=2)
    parts = (low.reshape(len(groups), -1), high.reshape(len(groups), -1))
    blocks = np.concatenate((*parts, scales.view(np.uint8), step.view(np.uint8)), 1)
    return blocks.reshape(len(rows), -1)
