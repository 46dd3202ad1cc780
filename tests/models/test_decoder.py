"""The decoder against transformers' eager models, in fp32, through the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mobilepack.models.decoder import Decoder, weightless, with_weights
from mobilepack.models.operators_plain import PLAIN
from mobilepack.models.spec import parameter_shapes
from mobilepack.models.weights import open_model
from tests.models.checkpoints import ROPE_SCALINGS, load_reference
from tests.models.conftest import Made
from tests.models.networks import feed, random_ids, relative_rms, same_top1, tiny_spec
from tests.runtime import load_kernels

MAX_RMS_OVER_STD = 1e-5  # measured 1e-6 on these models; the order of sums differs
POSITIONS = 40
CALLS = (13, 1, 1, 5, 1, 1)  # prefill, decode, a longer call in the middle, decode

Opened = Callable[..., tuple[Decoder, Any]]


@pytest.fixture(scope="session")
def opened(made: Made) -> Opened:
    """Return our decoder and transformers' model of one checkpoint."""

    def open_both(family: str, **options: Any) -> tuple[Decoder, Any]:
        folder = made(family, **options)
        model = open_model(folder)
        weights = {n: model.weights.tensor(n) for n in parameter_shapes(model.spec)}
        model.close()
        return with_weights(model.spec, POSITIONS, weights), load_reference(folder)

    return open_both


@torch.no_grad()
def reference_logits(model: Any, ids: tuple[int, ...], calls: tuple[int, ...]) -> torch.Tensor:
    """Return transformers' logits after each call, through its own cache: [calls, vocab]."""
    rows, position, cache = [], 0, None
    for length in calls:
        tokens = torch.tensor([ids[position : position + length]])
        answer = model(tokens, past_key_values=cache, use_cache=True)
        rows.append(answer.logits[0, -1])
        position, cache = position + length, answer.past_key_values
    return torch.stack(rows)


def agree(decoder: Decoder, reference: Any, seed: int = 0) -> None:
    ids = random_ids(decoder.spec, sum(CALLS), seed)
    ours, theirs = feed(decoder, ids, CALLS), reference_logits(reference, ids, CALLS)
    assert relative_rms(ours, theirs) <= MAX_RMS_OVER_STD
    assert same_top1(ours, theirs)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_family_computes_what_transformers_does(
    opened: Opened, family: str, tied: bool
) -> None:
    decoder, reference = opened(family, tie_word_embeddings=tied)
    agree(decoder, reference)
    agree(decoder, reference, seed=1)  # a second prompt over what the first left in the cache


@pytest.mark.parametrize("kind", ROPE_SCALINGS)
def test_every_rope_scaling_computes_what_transformers_does(opened: Opened, kind: str) -> None:
    agree(*opened("llama", rope_parameters=ROPE_SCALINGS[kind]))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1, "head_dim": 24}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
        ("llama", {"hidden_act": "relu"}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 2}),
        ("mistral", {"sliding_window": 13}),
        ("mistral", {"sliding_window": 64}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
        ("qwen3", {"attention_bias": True}),
    ],
    ids=str,
)
def test_what_a_config_can_vary_computes_what_transformers_does(
    opened: Opened, family: str, options: dict[str, Any]
) -> None:
    agree(*opened(family, **options))


@torch.no_grad()
def test_a_window_of_one_token_sees_only_itself(opened: Opened) -> None:
    decoder, reference = opened("mistral", sliding_window=1)
    ids = random_ids(decoder.spec, 12)
    # without its cache, which keeps everything if the window is 1 (5.23: `keys[-window + 1:]`)
    theirs = reference(torch.tensor([ids]), use_cache=False).logits[0]
    assert relative_rms(feed(decoder, ids, (1,) * 12), theirs) <= MAX_RMS_OVER_STD


@pytest.mark.parametrize("calls", [(1,) * 20, (20,), (7, 13), (19, 1)], ids=str)
def test_how_a_prompt_is_cut_does_not_matter(opened: Opened, calls: tuple[int, ...]) -> None:
    decoder, _ = opened("mistral")
    ids = random_ids(decoder.spec, 20)
    whole = feed(decoder, ids, (20,))[-1:]
    assert relative_rms(feed(decoder, ids, calls)[-1:], whole) <= MAX_RMS_OVER_STD


def test_rewinding_forgets_what_came_after(opened: Opened) -> None:
    decoder, _ = opened("qwen3")
    ids, other = random_ids(decoder.spec, 20), random_ids(decoder.spec, 6, seed=1)
    feed(decoder, ids, (20,))
    continued = feed(decoder, other, (6,), start=8)
    fresh = feed(decoder, ids[:8] + other, (14,))
    assert relative_rms(continued, fresh) <= MAX_RMS_OVER_STD


def test_the_cache_can_be_filled_to_its_last_position(opened: Opened) -> None:
    decoder, reference = opened("llama")
    ids = random_ids(decoder.spec, POSITIONS)
    calls = (POSITIONS - 1, 1)
    theirs = reference_logits(reference, ids, calls)
    assert relative_rms(feed(decoder, ids, calls), theirs) <= MAX_RMS_OVER_STD


def test_a_weightless_decoder_has_every_parameter_and_no_memory() -> None:
    spec = tiny_spec("qwen3")
    decoder = weightless(spec, 64)
    assert {n: tuple(p.shape) for n, p in decoder.named_parameters()} == parameter_shapes(spec)
    assert all(t.is_meta for t in decoder.state_dict().values())
    assert all(t.is_meta for t in decoder.buffers())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_plain_operators_say_the_same_as_the_composite_ones(opened: Opened, family: str) -> None:
    load_kernels()
    decoder, _ = opened(family)
    plain = with_weights(decoder.spec, POSITIONS, decoder.state_dict(), PLAIN)
    ids = random_ids(decoder.spec, sum(CALLS))
    ours = feed(decoder, ids, CALLS)
    assert relative_rms(feed(plain, ids, CALLS), ours) <= MAX_RMS_OVER_STD
