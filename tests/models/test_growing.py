"""The growing form computes what the dynamic form does, for every family of plain blocks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mobilepack.models.decoder import with_weights
from mobilepack.models.families.registry import family_of
from mobilepack.models.growing import GrowingDecoder, growing, past_shapes
from mobilepack.models.spec import DecoderSpec
from tests.matrix.cases import CASES, Case
from tests.models.networks import (
    RandomWeights,
    feed,
    random_ids,
    relative_rms,
    same_top1,
    tables,
    tiny_spec,
)

CONTEXT = 40
CALLS = (8, 1, 1, 5, 7, 1, 1)
MAX_RMS_OVER_STD = 1e-5  # as between the dynamic form and transformers: sums in another order


def _spec(case: Case) -> DecoderSpec:
    config = {"model_type": case.model_type, **case.keys}
    return family_of(config).read(config)


# llava's own config nests what its case gives flat; its decoder is llama's
PLAIN = [case for case in CASES if case.name != "llava" and _spec(case).is_plain]


def loaded(spec: DecoderSpec, weights: RandomWeights) -> GrowingDecoder:
    decoder = growing(spec, CONTEXT).to_empty(device="cpu")
    decoder.load_state_dict(dict(weights), strict=True, assign=True)
    made = tables(spec, CONTEXT)
    for name, buffer in decoder.named_buffers():
        buffer.copy_(made[name])
    return decoder


@torch.no_grad()
def grown(decoder: GrowingDecoder, ids: Sequence[int], calls: Sequence[int]) -> torch.Tensor:
    rows, at = [], 0
    past = [torch.zeros(shape) for shape in past_shapes(decoder.spec, 0)]
    for count in calls:
        tokens = torch.tensor([ids[at : at + count]])
        logits, *past = decoder(tokens, torch.arange(at, at + count)[None], past)
        rows.append(logits[0, 0])
        at += count
    return torch.stack(rows)


def _assert_equal(spec: DecoderSpec) -> None:
    weights = RandomWeights(spec)
    ids = random_ids(spec, sum(CALLS))
    ours = grown(loaded(spec, weights), ids, CALLS)
    theirs = feed(with_weights(spec, CONTEXT, weights), ids, CALLS)
    assert relative_rms(ours, theirs) <= MAX_RMS_OVER_STD
    assert same_top1(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_a_family_computes_what_its_dynamic_form_does(case: Case) -> None:
    _assert_equal(_spec(case))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_prefill_and_decode_compute_what_the_dynamic_form_does(family: str) -> None:
    _assert_equal(tiny_spec(family))


def test_every_layer_returns_the_keys_of_all_tokens() -> None:
    spec = tiny_spec("qwen3")
    decoder = loaded(spec, RandomWeights(spec))
    past = [torch.zeros(shape) for shape in past_shapes(spec, 0)]
    tokens = torch.tensor([random_ids(spec, 5)])
    logits, *made = decoder(tokens, torch.arange(5)[None], past)
    assert logits.shape == (1, 1, spec.vocab_size)
    assert [tuple(t.shape) for t in made] == past_shapes(spec, 5)
