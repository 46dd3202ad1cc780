"""Every family against transformers' own config classes."""

from __future__ import annotations

from typing import Any

import pytest

from mobilepack.errors import UsageError
from mobilepack.models.families.registry import family_of
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from tests.models.checkpoints import ROPE_SCALINGS, quiet_transformers

MINIMAL: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def read(family: str, **keys: Any) -> DecoderSpec:
    config = {**MINIMAL, "model_type": family, **keys}
    return family_of(config).read(config)


def problems(family: str, **keys: Any) -> str:
    with pytest.raises(UsageError) as failure:
        read(family, **keys)
    assert failure.value.code == "invalid-config"
    return failure.value.why


def reference(family: str, **keys: Any) -> Any:
    """Build transformers' config and model skeleton (no memory) of the same keys."""
    import torch

    auto_config, auto_model = quiet_transformers()
    config = auto_config.for_model(family, **{k: v for k, v in keys.items() if k != "model_type"})
    with torch.device("meta"):
        return config, auto_model.from_config(config)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 2}),
    ("llama", {"num_key_value_heads": None}),
    ("llama", {"head_dim": 24}),
    ("llama", {"head_dim": None}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", {"hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-5}),
    ("llama", {"rope_theta": 500000.0, "bos_token_id": None, "eos_token_id": [5, 6]}),
    ("mistral", {"num_attention_heads": 8}),
    ("mistral", {"num_key_value_heads": 2, "sliding_window": 16}),
    ("mistral", {"num_key_value_heads": 2, "sliding_window": None, "head_dim": 32}),
    ("qwen2", {"num_key_value_heads": 2}),
    ("qwen2", {"num_key_value_heads": None, "tie_word_embeddings": True}),
    ("qwen2", {"num_key_value_heads": 1, "use_sliding_window": True, "max_window_layers": 2}),
    (
        "qwen2",
        {
            "num_key_value_heads": 4,
            "use_sliding_window": True,
            "sliding_window": 8,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
        },
    ),
    ("qwen3", {"num_key_value_heads": 2}),
    ("qwen3", {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True}),
    ("qwen3", {"num_key_value_heads": 4, "use_sliding_window": True, "max_window_layers": 0}),
]


@pytest.mark.parametrize(("family", "keys"), VARIANTS)
def test_a_config_means_what_it_means_to_transformers(family: str, keys: dict[str, Any]) -> None:
    spec = read(family, **keys)
    config, model = reference(family, **{**MINIMAL, **keys})
    assert spec.max_positions == config.max_position_embeddings
    assert spec.norm is not None
    assert spec.norm.eps == config.rms_norm_eps
    assert spec.tied_head == config.tie_word_embeddings
    assert spec.bos_id == config.bos_token_id
    theirs = config.eos_token_id
    assert list(spec.eos_ids) == (
        theirs if isinstance(theirs, list) else [theirs] if theirs else []
    )
    assert spec.ropes[0].theta == config.rope_parameters["rope_theta"]
    assert spec.ropes[0].dim == 2 * len(model.model.rotary_emb.inv_freq)
    for ours, layer in zip(spec.layers, model.model.layers, strict=True):
        attention = layer.self_attn
        window = getattr(attention, "sliding_window", None)
        if family == "mistral":
            window = config.sliding_window
        mixer = ours.mixer
        assert mixer.window == window
        assert mixer.head_dim == attention.head_dim
        assert mixer.n_heads // mixer.n_kv_heads == attention.num_key_value_groups


@pytest.mark.parametrize(("family", "keys"), VARIANTS)
def test_the_decoder_has_the_tensors_of_transformers(family: str, keys: dict[str, Any]) -> None:
    spec = read(family, **keys)
    _, model = reference(family, **{**MINIMAL, **keys})
    sources = family_of({"model_type": family}).sources(spec)
    assert list(sources) == list(parameter_shapes(spec))
    theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if spec.tied_head:
        del theirs["lm_head.weight"]
    assert {source.key: source.shape for source in sources.values()} == theirs


@pytest.mark.parametrize("kind", ROPE_SCALINGS)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_family_takes_every_rope_scaling(family: str, kind: str) -> None:
    spec = read(family, num_key_value_heads=2, rope_parameters=ROPE_SCALINGS[kind])
    assert spec.ropes[0].kind == kind


def test_the_key_rope_scaling_wins_over_rope_parameters_as_in_transformers() -> None:
    keys = {
        "rope_theta": 777.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5.0},
    }
    config, _ = reference("llama", **{**MINIMAL, **keys})
    rope = read("llama", **keys).ropes[0]
    assert rope.theta == config.rope_parameters["rope_theta"]
    assert dict(rope.parameters)["factor"] == config.rope_parameters["factor"]


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"hidden_size": 66}, "hidden_size: is 66, no multiple of num_attention_heads (4)"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: is 3"),
        ({"head_dim": 15}, "head_dim: is 15; rotary embedding needs an even number"),
        ({"hidden_size": 60}, "head_dim: is 15"),
        ({"hidden_act": "siluu"}, "did you mean 'silu'"),
        ({"vocab_size": None}, "vocab_size: is missing"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: is 1000000000"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"num_key_value_head": 2}, "did you mean 'num_key_value_heads'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: must be 1"),
        ({"rope_scaling": {"type": "longrop"}}, "did you mean 'longrope'"),
        ({"rope_scaling": "linear"}, "rope_scaling: is"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor: is missing"),
        ({"rope_theta": -1.0}, "rope_theta"),
    ],
)
def test_a_number_that_cannot_work_is_an_error(keys: dict[str, Any], part: str) -> None:
    assert part in problems("llama", **keys)


def test_head_dim_makes_an_indivisible_hidden_size_valid() -> None:
    assert read("llama", hidden_size=66, head_dim=16).layers[0].mixer.head_dim == 16


def test_all_bad_keys_of_a_config_are_reported_together() -> None:
    why = problems("llama", vocab_size=-1, hidden_act="x", rope_scaling={"type": "yarn!"})
    assert all(key in why for key in ("vocab_size", "hidden_act", "rope_scaling.type"))


@pytest.mark.parametrize(
    ("family", "keys", "part"),
    [
        ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "sliding_window is not in use"),
        ("qwen2", {"layer_types": ["full_attention"]}, "has 1 entries"),
        ("qwen2", {"layer_types": ["other"] * 4}, "must be a list of"),
        ("qwen3", {"layer_types": "full_attention"}, "must be a list of"),
        ("mistral", {"layer_types": ["full_attention"] * 4}, "contradicts sliding_window"),
        ("mistral", {"sliding_window": 0}, "sliding_window: is 0"),
    ],
)
def test_windows_that_contradict_each_other_are_errors(
    family: str, keys: dict[str, Any], part: str
) -> None:
    assert part in problems(family, num_key_value_heads=2, **keys)
