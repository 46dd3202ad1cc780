from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.errors import UsageError
from mobilepack.models.config import ConfigReader
from mobilepack.models.families.rope_config import read_rope
from mobilepack.models.rope import inverse_frequencies, rope_tables
from mobilepack.models.spec import RopeSpec
from tests.models.checkpoints import ROPE_SCALINGS, quiet_transformers

HEAD_DIM, POSITIONS = 64, 256


def ours(parameters: dict[str, Any], head_dim: int = HEAD_DIM) -> RopeSpec:
    reader = ConfigReader({"rope_parameters": parameters})
    rope = read_rope(reader, head_dim, POSITIONS)
    reader.finish()
    return rope


def theirs(parameters: dict[str, Any], head_dim: int = HEAD_DIM) -> Any:
    """Return transformers' rotary module for a Llama config."""
    quiet_transformers()
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=head_dim * 2,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        rope_parameters=dict(parameters),
    )
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("kind", ROPE_SCALINGS)
def test_frequencies_equal_those_of_transformers_bit_for_bit(kind: str) -> None:
    reference = theirs(ROPE_SCALINGS[kind])
    frequencies, factor = inverse_frequencies(ours(ROPE_SCALINGS[kind]), POSITIONS)
    assert frequencies.dtype == torch.float32
    assert torch.equal(frequencies, reference.inv_freq)
    assert factor == reference.attention_scaling


@pytest.mark.parametrize("kind", ROPE_SCALINGS)
def test_tables_equal_those_of_transformers_bit_for_bit(kind: str) -> None:
    reference = theirs(ROPE_SCALINGS[kind])
    cosines, sines = reference(torch.zeros(1), torch.arange(POSITIONS)[None])
    cos, sin = rope_tables(ours(ROPE_SCALINGS[kind]), POSITIONS)
    assert cos.shape == sin.shape == (POSITIONS, HEAD_DIM // 2)
    assert torch.equal(torch.cat((cos, cos), -1), cosines[0])
    assert torch.equal(torch.cat((sin, sin), -1), sines[0])


@settings(max_examples=40, deadline=None)
@given(
    theta=st.sampled_from([1e4, 1e5, 5e5, 1e6]),
    factor=st.floats(1.0, 40.0),
    original=st.integers(16, 256),
    extra=st.fixed_dictionaries(
        {},
        optional={
            "beta_fast": st.floats(2.0, 64.0),
            "beta_slow": st.floats(0.1, 2.0),
            "mscale": st.floats(0.1, 2.0),
            "mscale_all_dim": st.floats(0.1, 2.0),
            "attention_factor": st.floats(0.1, 4.0),
            "truncate": st.booleans(),
        },
    ),
)
def test_yarn_equals_transformers_for_any_numbers(
    theta: float, factor: float, original: int, extra: dict[str, Any]
) -> None:
    parameters = {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": factor,
        "original_max_position_embeddings": original,
        **extra,
    }
    reference = theirs(parameters)
    frequencies, attention_factor = inverse_frequencies(ours(parameters), POSITIONS)
    assert torch.equal(frequencies, reference.inv_freq)
    assert attention_factor == pytest.approx(reference.attention_scaling, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    theta=st.sampled_from([1e4, 5e5]),
    factor=st.floats(1.0, 40.0),
    low=st.floats(0.5, 2.0),
    high=st.floats(2.5, 8.0),
    original=st.integers(16, 256),
)
def test_llama3_equals_transformers_for_any_numbers(
    theta: float, factor: float, low: float, high: float, original: int
) -> None:
    parameters = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    frequencies, _ = inverse_frequencies(ours(parameters), POSITIONS)
    assert torch.equal(frequencies, theirs(parameters).inv_freq)


def test_yarn_without_a_factor_takes_the_ratio_of_the_lengths() -> None:
    parameters = {"rope_type": "yarn", "original_max_position_embeddings": 64, "factor": None}
    assert dict(ours(parameters).parameters)["factor"] == POSITIONS / 64


def test_dynamic_scaling_leaves_the_trained_length_alone_and_refuses_more() -> None:
    rope = ours(ROPE_SCALINGS["dynamic"])
    plain, _ = inverse_frequencies(ours(ROPE_SCALINGS["default"]), POSITIONS)
    assert torch.equal(inverse_frequencies(rope, POSITIONS)[0], plain)
    with pytest.raises(UsageError, match="257 positions") as failure:
        inverse_frequencies(rope, POSITIONS + 1)
    assert failure.value.next == "use --max-seq-len 256 or less"


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_the_older_spelling_of_a_config_reads_the_same(key: str) -> None:
    scaling = {**ROPE_SCALINGS["llama3"], key: "llama3"}
    theta = scaling.pop("rope_theta")
    if key == "type":
        del scaling["rope_type"]
    reader = ConfigReader({"rope_theta": theta, "rope_scaling": scaling})
    assert read_rope(reader, HEAD_DIM, POSITIONS) == ours(ROPE_SCALINGS["llama3"])
    assert not reader.problems


def test_an_unknown_kind_is_an_error_that_names_key_file_and_near_misses() -> None:
    with pytest.raises(UsageError) as failure:
        ours({"rope_type": "yarm", "factor": 2.0})
    assert "config.json" in failure.value.what
    assert "rope_parameters.rope_type" in failure.value.why
    assert "did you mean 'yarn'" in failure.value.why


def test_all_wrong_numbers_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as failure:
        ours(
            {"rope_type": "llama3", "factor": "8", "low_freq_factor": 4.0, "high_freq_factor": 1.0}
        )
    assert 'rope_parameters.factor: is "8"; a number is needed' in failure.value.why
    assert "high_freq_factor: must be larger" in failure.value.why


def test_positions_that_differ_by_layer_are_refused() -> None:
    with pytest.raises(UsageError, match="differ by layer"):
        ours({"full_attention": {"rope_type": "default"}})
