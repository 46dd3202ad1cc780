"""Encodings: what ranges become, what shares one, and how the NPU multiplies."""

from __future__ import annotations

import pytest
import torch

from mobilepack.backends.qnn.encodings import (
    Codes,
    Groups,
    code_of,
    quantise_blocks,
    quantise_matrix,
)
from mobilepack.backends.qnn.fake_quantised import _product
from mobilepack.backends.qnn.sequences import Tracer
from tests.models.networks import tiny_spec


@pytest.mark.parametrize("low", [-3.0, -0.2, -1e-6, 0.0, 0.7])
@pytest.mark.parametrize("high", [-0.1, 0.0, 1e-6, 0.3, 800.0])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_range_fits_into_its_integers(low: float, high: float, bits: int) -> None:
    code = code_of(low, high, bits)  # type: ignore[arg-type]
    least, largest = -code.zero_point * code.scale, (code.largest - code.zero_point) * code.scale
    slack = code.scale / 2  # rounding to the nearest integer reaches so far
    assert least - slack <= min(low, 0.0)
    assert max(high, 0.0) <= largest + slack
    assert code.zero_point % 256 in ((128,) if bits == 8 else (0, 255))
    assert code.rounded(torch.zeros(1)).item() == 0.0


def test_a_zero_point_costs_little_range() -> None:
    """At most half of 1/256 of the integers stay unused."""
    for low, high in ((-1.0, 1.0), (-0.3, 2.0), (-5.0, 0.4)):
        assert code_of(low, high, 16).scale <= (high - low) / 65535 * (1 + 1 / 128) / (
            2 * min(-low, high) / (high - low)
        )


def test_integers_come_back_as_what_is_rounded() -> None:
    code = code_of(-1.0, 2.0, 16)
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    numbers = (code.integers(x).to(torch.int32) - code.zero_point) * code.scale
    torch.testing.assert_close(numbers, code.rounded(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_matrix_keeps_its_largest_number(bits: int) -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    matrix = quantise_matrix(weight, bits)  # type: ignore[arg-type]
    numbers = (matrix.signed().float() * matrix.scales).t()
    assert numbers.shape == weight.shape
    torch.testing.assert_close(numbers.abs().amax(1), weight.abs().amax(1))
    assert ((numbers - weight).abs() <= matrix.scales[:, None] * 0.5001).all()
    if bits == 4:
        assert 0 <= int(matrix.integers.min()) <= int(matrix.integers.max()) <= 15


def test_blocks_lose_less_than_rows() -> None:
    """A block's scale is the least whole sixteenth that holds its largest number."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(-1, 0.5, 4).repeat_interleave(16)  # blocks of unlike sizes
    weight = torch.randn(6, 64, generator=generator) * spread
    by_row, by_block = quantise_matrix(weight, 4), quantise_blocks(weight, 16)
    errors = [
        float((matrix.signed().float() * matrix.scales - weight.t()).square().mean())
        for matrix in (by_row, by_block)
    ]
    assert errors[1] < 0.6 * errors[0]
    steps = by_block.block_scales
    assert steps is not None
    assert steps.shape == (6, 4)
    assert (steps.amax(1) == 16).all()
    assert int(steps.min()) >= 1
    assert int(by_block.signed().abs().max()) <= 7 * 16


def test_what_is_only_moved_keeps_its_encoding() -> None:
    graph = Tracer(tiny_spec(), 16, "together", True).graph(4, 15)
    groups = Groups([graph])
    for step in graph.steps:
        if step.kind in ("reshape", "slice", "permute") and step.output.dtype == "float32":
            assert groups.of(step.output.name) == groups.of(step.inputs[0].name)
    for name in ("k_0", "v_1"):
        assert groups.of(name) == groups.of(f"{name}_out")
        assert groups.bits(name) == 8
    assert groups.of("k_0") != groups.of("k_1")
    assert groups.bits("logits_out") == groups.bits("mask") == 16
    codes = Codes(groups, {groups.of("k_0"): (-1.0, 2.0)})
    assert codes["k_0_out"] == codes["k_0"]


def test_accumulators_lose_their_lower_eight_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(-40000, 40000, (9, 700), generator=generator)
    weights = torch.randint(-127, 128, (700, 33), generator=generator)
    exact = steps.double() @ weights.double()
    scale = 3e-4
    found = _product(steps * scale, weights.float(), scale)
    assert torch.equal(found.double(), torch.floor(exact / 256))
