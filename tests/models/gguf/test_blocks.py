"""Blocks become the same float32 numbers as in the gguf package, bit by bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from mobilepack.models.gguf.blocks import DEQUANTISERS
from mobilepack.models.gguf.types import BY_NAME, READABLE, TYPES
from tests.models.gguf.quantisers import dequantised, quantised

BLOCKED = [name for name in READABLE if BY_NAME[name].block > 1]
COUNT = 500
EXTREMES = (0x00, 0xFF, 0x7F, 0x80, 0x01)


def blocks(name: str, seed: int = 0) -> np.ndarray:
    """Return random blocks whose half-precision numbers are finite, and some of equal bytes."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (COUNT, BY_NAME[name].size), dtype=np.uint8)
    raw[: len(EXTREMES)] = np.array(EXTREMES, dtype=np.uint8)[:, None]
    return raw


def ours(raw: np.ndarray, name: str) -> np.ndarray:
    found = DEQUANTISERS[name](torch.from_numpy(raw))
    return found.float().numpy().reshape(len(raw), -1)


@pytest.mark.parametrize("name", BLOCKED)
def test_any_block_gives_the_bits_of_the_gguf_package(name: str) -> None:
    raw = blocks(name)
    with np.errstate(all="ignore"):  # scales of random bits are also infinite or NaN
        wanted = dequantised(raw, name)
    found = ours(raw, name)
    finite = np.isfinite(wanted)
    assert finite.mean() > 0.9
    assert found.shape == (COUNT, BY_NAME[name].block)
    assert np.array_equal(found.view(np.uint32)[finite], wanted.view(np.uint32)[finite])
    assert np.array_equal(np.isnan(found), np.isnan(wanted))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K"])
def test_quantised_rows_come_back_near_what_they_were(name: str) -> None:
    rows = np.random.default_rng(1).standard_normal((16, 512), dtype=np.float32)
    raw = quantised(rows, name)
    found = ours(raw.reshape(-1, BY_NAME[name].size), name).reshape(rows.shape)
    # Half a step of the coarsest type: a range of +-4 in 15 steps.
    assert np.abs(found - rows).max() < 0.35
    assert np.array_equal(found, dequantised(raw, name))


def test_the_table_of_types_agrees_with_the_gguf_package() -> None:
    theirs = {
        int(kind): (kind.name, block, size)
        for kind, (block, size) in gguf.GGML_QUANT_SIZES.items()
        if int(kind) in TYPES
    }
    assert theirs == {code: (k.name, k.block, k.size) for code, k in TYPES.items()}


def test_every_readable_type_has_a_dequantiser() -> None:
    assert set(READABLE) == set(DEQUANTISERS)
