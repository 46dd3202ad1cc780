"""The evaluator that reads weights piece by piece, against decoders that hold them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from mobilepack.models import streaming
from mobilepack.models.decoder import Decoder, Linear, with_weights
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.streaming import FP32, Lane, Quantisation, run_lanes
from mobilepack.pipeline.export import export_decoder
from tests.models.networks import (
    FAMILIES,
    RandomWeights,
    eager_logits,
    feed,
    random_ids,
    relative_rms,
    same_top1,
    tables,
    tiny_spec,
)

pytestmark = pytest.mark.slow

POSITIONS = 32
Case = tuple[DecoderSpec, RandomWeights, ExportedProgram]


@pytest.fixture(scope="module")
def case() -> Callable[..., Case]:
    """Return a tiny model and its export; equal options share one."""
    cache: dict[str, Case] = {}

    def make(family: str = "llama", *, chunk: int = 8, **options: Any) -> Case:
        key = repr((family, chunk, options))
        if key not in cache:
            spec = tiny_spec(family, **options)
            exported = export_decoder(spec, POSITIONS, chunk)
            cache[key] = spec, RandomWeights(spec), exported
        return cache[key]

    return make


def run(case: Case, *lanes: Lane) -> list[torch.Tensor]:
    spec, weights, exported = case
    return run_lanes(exported, weights, tables(spec, POSITIONS), lanes)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_lane_is_the_eager_decoder_at_every_position(
    case: Callable[..., Case], family: str
) -> None:
    made = case(family)
    ids = random_ids(made[0], POSITIONS)
    (logits,) = run(made, Lane(ids))
    reference = eager_logits(*made[:2], ids)
    assert logits.shape == (POSITIONS, made[0].vocab_size)
    assert relative_rms(logits, reference) <= 1e-5
    assert same_top1(logits, reference)


class _NaiveLinear(nn.Module):
    """A quantised linear map, written again from the description of the formats."""

    def __init__(self, linear: Linear, group: int) -> None:
        super().__init__()
        columns = linear.weight.shape[1]
        fits = [size for size in (128, 64, 32) if size <= group and columns % size == 0]
        weight = linear.weight.data.clone()
        for start in range(0, columns, fits[0]) if fits else ():
            part = weight[:, start : start + fits[0]]
            scale = (part.abs().amax(1, keepdim=True) / 7.5).bfloat16().float()
            part.copy_((part * (1 / scale)).round().clamp(-8, 7) * scale)
        if not fits:
            scale = weight.abs().amax(1, keepdim=True) / 127
            weight = (weight / scale).round() * scale
        self.weight, self.bias = weight, linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        low, high = torch.minimum(low, torch.zeros(())), torch.maximum(high, torch.zeros(()))
        scale = (high - low) / 255
        zero = torch.round(-128 - low / scale)
        rounded = torch.clamp(torch.round(x / scale) + zero, -128, 127)
        return nn.functional.linear((rounded - zero) * scale, self.weight, self.bias)


def naive_decoder(spec: DecoderSpec, weights: RandomWeights, quantisation: Quantisation) -> Decoder:
    """Return the eager decoder with its modules exchanged for naive quantised ones."""
    decoder = with_weights(spec, POSITIONS, dict(weights))
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear):
                setattr(parent, name, _NaiveLinear(child, quantisation.group))
    table = weights["embed.weight"].clone()
    if quantisation.embedding == "8w":
        scale = table.abs().amax(1, keepdim=True) / 127
        table = (table / scale).round() * scale
    elif quantisation.embedding == "4w":
        group = next(g for g in (128, 64, 32) if g <= quantisation.group and not table.shape[1] % g)
        blocks = table.view(len(table), -1, group)
        scale = (blocks.abs().amax(-1, keepdim=True) / 7.5).bfloat16().float()
        table = ((blocks * (1 / scale)).round().clamp(-8, 7) * scale).view(table.shape)
    decoder.embed.weight.data = table
    return decoder


@pytest.mark.parametrize(
    ("family", "options", "group", "embedding"),
    [
        ("llama", {}, 32, "4w"),
        ("mistral", {}, 64, "8w"),
        ("qwen2", {}, 128, "4w"),
        ("qwen3", {}, 64, "fp32"),
        ("llama", {"attention_bias": True, "mlp_bias": True, "intermediate_size": 100}, 64, "4w"),
        ("llama", {"hidden_size": 72, "head_dim": 16}, 32, "8w"),
    ],
    ids=str,
)
def test_a_quantised_lane_is_a_naively_quantised_decoder(
    case: Callable[..., Case], family: str, options: dict[str, Any], group: int, embedding: str
) -> None:
    """Most prompts agree like fp32; where a rounding falls to the other side, by its step.

    Sums of another order differ by 1e-7, and an activation lies that near to a boundary about
    once in a hundred tokens.
    """
    made, quantisation = case(family, **options), Quantisation(group, embedding)
    prompts = [random_ids(made[0], 6, seed) for seed in range(12)]
    found = run(made, *(Lane(ids, quantisation) for ids in prompts))
    decoder = naive_decoder(*made[:2], quantisation)
    errors = [
        relative_rms(logits, feed(decoder, ids, (1,) * 6))
        for logits, ids in zip(found, prompts, strict=True)
    ]
    assert sorted(errors)[8] <= 1e-5, errors
    assert max(errors) <= 0.1, errors
    plain = run(made, *(Lane(ids) for ids in prompts))
    assert relative_rms(torch.cat(found), torch.cat(plain)) > 0.02  # it did quantise


def test_lanes_do_not_see_each_other(case: Callable[..., Case]) -> None:
    made = case("qwen2")
    lanes = [
        Lane(random_ids(made[0], 9), Quantisation(32, "4w")),
        Lane(random_ids(made[0], 5, seed=1)),
        Lane(random_ids(made[0], 1, seed=2), Quantisation(64, "8w")),
        Lane(random_ids(made[0], 7, seed=3), Quantisation(32, "8w")),
    ]
    together = run(made, *lanes)
    for lane, logits in zip(lanes, together, strict=True):
        (alone,) = run(made, lane)
        assert len(logits) == len(lane.token_ids)
        assert relative_rms(logits, alone) <= 1e-5


def test_noise_is_repeatable_and_of_the_size_asked_for(case: Callable[..., Case]) -> None:
    made = case("llama")
    ids = random_ids(made[0], 12)
    plain, noisy, more = run(made, Lane(ids), Lane(ids, FP32, 1e-4), Lane(ids, FP32, 1e-2))
    (again,) = run(made, Lane(ids, FP32, 1e-4))
    assert torch.equal(noisy, again)
    small, large = relative_rms(noisy, plain), relative_rms(more, plain)
    assert 1e-5 < small < 1e-3
    assert 30 < large / small < 300


@pytest.mark.parametrize("chunk", [1, 2, POSITIONS])
def test_a_lane_may_be_longer_than_a_call_of_the_program(
    case: Callable[..., Case], chunk: int
) -> None:
    made = case("mistral", chunk=chunk)
    ids = random_ids(made[0], POSITIONS)
    (logits,) = run(made, Lane(ids))
    assert relative_rms(logits, eager_logits(*made[:2], ids)) <= 1e-5


def test_weights_are_read_in_small_pieces_and_progress_reaches_the_end(
    case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, weights, exported = case("llama")
    ids, shares, read = random_ids(spec, 4), [], []

    class Watched(RandomWeights):
        def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
            read.append((stop - start) * self[name].shape[1])
            return super().rows(name, start, stop)

    (whole,) = run_lanes(exported, weights, tables(spec, 4), [Lane(ids)])
    monkeypatch.setattr(streaming, "_CHUNK_ELEMENTS", 1024)
    (pieces,) = run_lanes(exported, Watched(spec), tables(spec, 4), [Lane(ids)], shares.append)
    assert max(read) <= 1024
    assert relative_rms(pieces, whole) <= 1e-6
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
