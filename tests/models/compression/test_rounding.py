"""Calibrated rounding leaves less error than plain rounding, in the sense each method minds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.models.compression.awq import best_channel_scale, rounded
from mobilepack.models.compression.gptq import DAMPING, Curvature, gptq
from mobilepack.models.compression.hqq import hqq
from mobilepack.models.compression.scales import best_scales, round_to
from mobilepack.models.quantization import (
    QuantisedRows,
    fake_quantise_activations,
    quantise_int4,
)

seeds = st.integers(0, 2**32 - 1)
GROUP = 32


def weights(seed: int, rows: int = 24, columns: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) ** 3


def correlated(seed: int, tokens: int = 400, columns: int = 96) -> torch.Tensor:
    """Return inputs of few directions and very different channel sizes, as networks have them."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, 24, generator=generator) @ torch.randn(
        24, columns, generator=generator
    )
    sizes = torch.exp(torch.randn(columns, generator=generator))
    return (mixed + 0.3 * torch.randn(tokens, columns, generator=generator)) * sizes


def output_error(rows: torch.Tensor, found: QuantisedRows, inputs: torch.Tensor) -> float:
    return float(((found.dequantise() - rows) @ inputs.T).pow(2).sum())


def is_storable(found: QuantisedRows) -> bool:
    """Tell whether integers are int4 and scales positive bf16 numbers, as the file needs them."""
    scales = found.scales
    exact = torch.equal(scales.to(torch.bfloat16).float(), scales)
    inside = int(found.values.min()) >= -8 and int(found.values.max()) <= 7
    return exact and inside and bool((scales > 0).all())


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_gptq_moves_the_output_least(seed: int) -> None:
    rows, inputs = weights(seed), correlated(seed + 1)
    found = gptq(rows, Curvature.of(inputs), GROUP)
    plain = quantise_int4(rows, GROUP)
    nearest = rounded(rows, inputs.pow(2).mean(0), GROUP)
    assert is_storable(found)
    assert output_error(rows, found, inputs) < 0.7 * output_error(rows, plain, inputs)
    assert output_error(rows, found, inputs) < output_error(rows, nearest, inputs)


def column_by_column(rows: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values and scales by Frantar et al. 2022, equations 2 and 3, with no Cholesky factor.

    The inverse of what is left of H is updated after every column, in float64.
    """
    moments = (inputs.T @ inputs / len(inputs)).double()
    moments += DAMPING * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
    importance = moments.diagonal().float().view(-1, GROUP)
    inverse = torch.linalg.inv(moments)
    left = rows.double().clone()
    values, scales = [], []
    for column in range(rows.shape[1]):
        if column % GROUP == 0:
            index = column // GROUP
            block = left[:, column : column + GROUP].float().unsqueeze(1)
            scales.append(best_scales(block, importance[index : index + 1])[:, 0])
        value = (left[:, column] / scales[-1]).round().clamp(-8, 7)
        values.append(value)
        error = (left[:, column] - value * scales[-1]) / inverse[column, column]
        left -= torch.outer(error, inverse[column])
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return torch.stack(values, 1).to(torch.int8), torch.stack(scales, 1)


def test_gptq_is_the_textbook_algorithm_across_blocks_of_columns() -> None:
    """Float32 against float64: values that lie halfway between integers may differ."""
    rows, inputs = weights(3, columns=288), correlated(4, tokens=900, columns=288)
    found = gptq(rows, Curvature.of(inputs), GROUP)
    values, scales = column_by_column(rows, inputs)
    assert (found.values == values).float().mean() > 0.99
    assert (found.scales == scales).float().mean() > 0.99


def test_gptq_with_independent_inputs_rounds_to_nearest() -> None:
    rows = weights(5)
    inputs = torch.linalg.qr(torch.randn(200, 96, generator=torch.Generator().manual_seed(1)))[0]
    found = gptq(rows, Curvature.of(inputs * 200**0.5), GROUP)
    blocks = rows.view(24, -1, GROUP)
    scales = best_scales(blocks)
    assert torch.equal(found.scales, scales)
    assert torch.equal(found.values, round_to(blocks, scales))


def test_gptq_takes_rows_in_pieces_and_leaves_them_alone() -> None:
    rows, curvature = weights(6), Curvature.of(correlated(7))
    copy = rows.clone()
    whole = gptq(rows, curvature, GROUP)
    parts = [gptq(rows[at : at + 5], curvature, GROUP) for at in range(0, 24, 5)]
    assert torch.equal(torch.cat([part.values for part in parts]), whole.values)
    assert torch.equal(torch.cat([part.scales for part in parts]), whole.scales)
    assert torch.equal(rows, copy)


def test_pruned_weights_stay_pruned_if_they_are_to() -> None:
    rows, curvature = weights(8), Curvature.of(correlated(9))
    rows[:, ::2] = 0
    kept = gptq(rows, curvature, GROUP, keep_zeros=True)
    assert not kept.values[:, ::2].any()
    assert gptq(rows, curvature, GROUP).values[:, ::2].any()


def test_a_channel_that_is_always_zero_is_no_obstacle() -> None:
    inputs = correlated(10)
    inputs[:, 40] = 0
    found = gptq(weights(11), Curvature.of(inputs), GROUP)
    assert is_storable(found)
    assert found.dequantise().isfinite().all()


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_best_scale_is_no_worse_than_the_plain_one(seed: int) -> None:
    rows = weights(seed)
    blocks = rows.view(24, -1, GROUP)
    scales = best_scales(blocks)
    found = QuantisedRows(round_to(blocks, scales), scales)
    error = (found.dequantise() - rows).pow(2).view(24, -1, GROUP).sum(-1)
    plain = (quantise_int4(rows, GROUP).dequantise() - rows).pow(2).view(24, -1, GROUP).sum(-1)
    assert (error <= plain * (1 + 1e-5)).all()


def test_groups_of_zeros_stay_zero() -> None:
    rows = torch.zeros(2, 64)
    for found in (hqq(rows, GROUP), rounded(rows, torch.ones(64), GROUP)):
        assert is_storable(found)
        assert not found.values.any()


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_hqq_forgives_outliers(seed: int) -> None:
    """Its aim is the l_0.7 norm of the error, summed over all groups; scales are bf16 after it."""
    rows = weights(seed)
    found, plain = hqq(rows, GROUP), quantise_int4(rows, GROUP)
    assert is_storable(found)
    norm = (found.dequantise() - rows).abs().pow(0.7).sum()
    assert norm < (plain.dequantise() - rows).abs().pow(0.7).sum()


def test_awq_spares_the_channels_with_large_inputs() -> None:
    inputs, rows = correlated(12), weights(13)
    inputs[:, 7] *= 30
    scale = best_channel_scale(inputs, lambda: [(rows, GROUP)], lambda scale: scale)
    assert int(scale.argmax()) == 7

    def error(scale: torch.Tensor) -> float:
        importance = (inputs / scale).pow(2).mean(0)
        stored = rounded(rows * scale, importance, GROUP).dequantise()
        fed = fake_quantise_activations(inputs / scale)
        return float((fed @ stored.T - inputs @ rows.T).pow(2).sum())

    assert error(scale) < 0.9 * error(torch.ones(96))


@pytest.mark.parametrize("group", [32, 64, 128])
def test_every_group_size_of_the_file_format_works(group: int) -> None:
    rows, inputs = weights(14, columns=384), correlated(15, columns=384)
    for found in (gptq(rows, Curvature.of(inputs), group), hqq(rows, group)):
        assert found.scales.shape == (24, 384 // group)
        assert is_storable(found)
