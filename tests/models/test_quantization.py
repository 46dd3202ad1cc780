"""Properties of rounding: error bounds, exact scales, and the rule for odd widths."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobilepack.models.encodings import (
    EMBEDDING_GROUP,
    GROUP_SIZES,
    embedding_encoding,
    linear_encoding,
)
from mobilepack.models.quantization import (
    QuantisedRows,
    fake_quantise_activations,
    fake_quantise_heads,
    quantise,
    quantise_int4,
    quantise_int8,
)

BF16_ERROR = 2**-8  # relative, of rounding to 8 significant bits
FP32_SLACK = 1 + 1e-5  # of a quotient and a product in float32

seeds = st.integers(0, 2**32 - 1)
magnitudes = st.integers(-20, 20)
groups = st.sampled_from([32, 64, 128])


def random_rows(seed: int, rows: int, columns: int, magnitude: int) -> torch.Tensor:
    """Return weights with groups of very different size, some zeros and some whole zero groups."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator) * 2.0**magnitude
    values *= 2.0 ** torch.randint(-6, 7, (rows, 1), generator=generator)
    values[torch.rand(rows, columns, generator=generator) < 0.1] = 0
    values[:, :32][torch.rand(rows, generator=generator) < 0.2] = 0
    return values


def spread(found: QuantisedRows, columns: int) -> torch.Tensor:
    """Return the scale of every single weight."""
    return found.scales.repeat_interleave(columns // found.scales.shape[1], 1)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), blocks=st.integers(1, 3), group=groups, m=magnitudes)
def test_int4_is_half_a_step_away_except_where_it_clips(
    seed: int, rows: int, blocks: int, group: int, m: int
) -> None:
    weights = random_rows(seed, rows, blocks * group, m)
    found = quantise_int4(weights, group)
    error, scale = (weights - found.dequantise()).abs(), spread(found, weights.shape[1])
    # max|w| = 7.5 steps is rounded to bf16, so the positive end is up to 7.5 (1 + 2^-8) steps out
    clipped = weights > 7.5 * scale
    assert (error[~clipped] <= scale[~clipped] / 2 * FP32_SLACK).all()
    assert (error <= scale * (0.5 + 7.5 * BF16_ERROR) * FP32_SLACK).all()
    assert found.values.min() >= -8
    assert found.values.max() <= 7


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), group=groups, m=magnitudes)
def test_int4_scales_are_what_bf16_can_store(seed: int, rows: int, group: int, m: int) -> None:
    found = quantise_int4(random_rows(seed, rows, 2 * group, m), group)
    assert found.scales.shape == (rows, 2)
    assert torch.equal(found.scales, found.scales.to(torch.bfloat16).float())
    assert (found.scales > 0).all()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), group=groups, m=magnitudes)
def test_the_scale_fits_the_largest_weight_of_its_group(
    seed: int, rows: int, group: int, m: int
) -> None:
    weights = random_rows(seed, rows, 2 * group, m)
    largest = weights.abs().view(rows, 2, group).amax(-1)
    exact = (largest / 7.5).clamp(min=1e-30)
    torch.testing.assert_close(quantise_int4(weights, group).scales, exact, rtol=BF16_ERROR, atol=0)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), group=groups)
def test_an_int4_embedding_has_the_integers_of_a_linear_and_the_same_scales(
    seed: int, rows: int, group: int
) -> None:
    weights = random_rows(seed, rows, 2 * group, 0) * 0.02  # the size of a model's embedding
    linear, table = quantise_int4(weights, group), quantise(weights, "embedding4", group)
    assert torch.equal(linear.values, table.values)
    assert torch.equal(table.scales, table.scales.half().float())
    torch.testing.assert_close(table.scales, linear.scales, rtol=0, atol=2**-24)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), columns=st.integers(33, 99), m=magnitudes)
def test_int8_is_half_a_step_away_everywhere(seed: int, rows: int, columns: int, m: int) -> None:
    weights = random_rows(seed, rows, columns, m)
    found = quantise_int8(weights)
    assert found.scales.shape == (rows, 1)
    error = (weights - found.dequantise()).abs()
    assert (error <= found.scales / 2 * (1 + 128 * 1e-5)).all()
    assert found.values.abs().max() <= 127


@settings(max_examples=40, deadline=None)
@given(seed=seeds, encoding=st.sampled_from(["int4", "int8"]), m=magnitudes)
def test_quantising_again_what_was_dequantised_changes_little(
    seed: int, encoding: str, m: int
) -> None:
    """A second rounding moves by a step at most: the scale is chosen again from clipped ends."""
    once = quantise(random_rows(seed, 3, 64, m), encoding, 32)
    twice = quantise(once.dequantise(), encoding, 32)
    assert (once.values.int() - twice.values.int()).abs().max() <= 1


@pytest.mark.parametrize("encoding", ["int4", "embedding4", "int8"])
def test_zero_stays_zero_and_sign_is_kept(encoding: str) -> None:
    rows = torch.zeros(2, 64)
    assert not quantise(rows, encoding, 32).dequantise().any()
    rows[0, 3], rows[1, 40] = -2.0, 2.0
    back = quantise(rows, encoding, 32).dequantise()
    assert back[0, 3] < 0 < back[1, 40]
    assert int((back != 0).sum()) == 2


@pytest.mark.parametrize("encoding", ["int4", "embedding4", "int8"])
def test_the_smallest_and_largest_floats_stay_finite(encoding: str) -> None:
    for size in (1e-45, 1e-38, 3.3e38):
        rows = torch.full((1, 32), size)
        assert quantise(rows, encoding, 32).dequantise().isfinite().all()


@pytest.mark.parametrize("encoding", ["int4", "embedding4", "int8"])
def test_rows_do_not_depend_on_their_neighbours(encoding: str) -> None:
    rows = random_rows(0, 6, 128, 0)
    whole = quantise(rows, encoding, 32)
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        part = quantise(rows[start:stop], encoding, 32)
        assert torch.equal(part.values, whole.values[start:stop])
        assert torch.equal(part.scales, whole.scales[start:stop])


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="int3"):
        quantise(torch.zeros(1, 32), "int3", 32)


@given(columns=st.integers(1, 20_000), group=groups)
@example(576, 128)  # SmolLM2: divides by 64
@example(896, 128)  # Qwen2.5-0.5B: divides by 128
@example(4864, 128)
@example(100, 32)
def test_no_width_is_left_in_float32(columns: int, group: int) -> None:
    encoding, found = linear_encoding(columns, group)
    allowed = [size for size in GROUP_SIZES if size <= group and columns % size == 0]
    expected = ("int4", max(allowed)) if allowed else ("int8", columns)
    assert (encoding, found) == expected
    assert columns % found == 0


@given(
    columns=st.integers(1, 20_000),
    kind=st.sampled_from(["fp32", "8w", "4w"]),
    linear_group=st.sampled_from([0, 32, 64, 128]),
)
def test_an_embedding_is_fp32_only_if_asked_for(columns: int, kind: str, linear_group: int) -> None:
    encoding, group = embedding_encoding(columns, kind, linear_group)
    assert (encoding == "fp32") == (kind == "fp32")
    linear, expected = linear_encoding(columns, linear_group or EMBEDDING_GROUP)
    if kind == "4w" and linear == "int4":
        assert (encoding, group) == ("embedding4", expected)
    elif kind != "fp32":
        assert (encoding, group) == ("int8", columns)


def naive_activations(row: list[float]) -> list[float]:
    """Round one row in Python floats (double), step by step as XNNPACK documents it."""
    low, high = min(0.0, *row), max(0.0, *row)
    if low == high:
        return row
    scale = (high - low) / 255
    zero_point = max(-128, min(127, round(-128 - low / scale)))
    integers = [max(-128, min(127, round(x / scale) + zero_point)) for x in row]
    return [(value - zero_point) * scale for value in integers]


rows_of_floats = st.lists(
    st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
    min_size=2,
    max_size=24,
)


@settings(max_examples=200, deadline=None)
@given(row=rows_of_floats)
@example([0.0, 0.0])
@example([5.0, 5.0])
@example([-3.0, -1.0])
@example([-1.0, 254.0])
def test_activations_round_as_a_naive_reference_does(row: list[float]) -> None:
    found = fake_quantise_activations(torch.tensor([row]))[0].tolist()
    step = (max(0.0, *row) - min(0.0, *row)) / 255
    for ours, naive, x in zip(found, naive_activations(row), row, strict=True):
        # ties may fall to either side in float32, which is a whole step
        assert math.isclose(ours, naive, abs_tol=1.001 * step, rel_tol=1e-6)
        assert abs(ours - x) <= 1.001 * step  # half a step, and half of the zero point's


@settings(max_examples=100, deadline=None)
@given(seed=seeds, rows=st.integers(1, 4), m=magnitudes, shift=st.floats(-3, 3))
def test_zero_is_always_exact_and_rows_are_rounded_each_on_its_own(
    seed: int, rows: int, m: int, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(rows, 16, generator=generator) + shift) * 2.0**m
    x[:, 5] = 0
    found = fake_quantise_activations(x)
    assert not found[:, 5].any()
    for index in range(rows):
        alone = fake_quantise_activations(x[index : index + 1])
        assert torch.equal(alone[0], found[index])


def test_integers_that_fit_eight_bits_are_exact() -> None:
    x = torch.arange(-100.0, 156.0).view(1, 256)
    assert torch.equal(fake_quantise_activations(x), x)


def test_cached_keys_are_rounded_head_by_head() -> None:
    x = torch.tensor([[[1.0, -2.0, 0.5, 0.007, 0.0, 0.0, 100.0, -63.5]]])
    found = fake_quantise_heads(x, 4)
    assert found[0, 0, 4:].tolist() == pytest.approx([0.0, 0.0, 100.0, 100 * -81 / 127])
    steps = found[..., :4] * 127 / 2
    assert torch.allclose(steps, torch.tensor([64.0, -127.0, 32.0, 0.0]))
    assert fake_quantise_heads(torch.zeros(1, 1, 4), 4).tolist() == [[[0.0] * 4]]
