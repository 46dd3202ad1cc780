"""Metadata become the config of a family, and what they do not fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mobilepack.errors import UsageError
from mobilepack.models.families.registry import family_of
from mobilepack.models.gguf.config import config_of, generation_config_of
from mobilepack.models.gguf.file import GgufFile
from mobilepack.models.weight_file import TensorInfo

_SIZES = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 4,
}


def file(arch: str, tensors: tuple[str, ...] = (), **keys: Any) -> GgufFile:
    """Return what `config_of` looks at; underscores in keys stand for nothing else."""
    metadata = {f"{arch}.{key}": value for key, value in {**_SIZES, **keys}.items()}
    shapes = dict.fromkeys(tensors, (16,)) | {"token_embd.weight": (320, 32)}
    infos = {name: TensorInfo("F32", shape, 0, 0) for name, shape in shapes.items()}
    return cast(
        GgufFile,
        SimpleNamespace(
            metadata={"general.architecture": arch} | metadata,
            tensors=infos,
            path=Path("x.gguf"),
            read_rows=lambda name, start, stop: torch.arange(1.0, 17.0)[start:stop],
        ),
    )


RMS = {"attention.layer_norm_rms_epsilon": 1e-5}


def refusal(made: GgufFile) -> UsageError:
    with pytest.raises(UsageError) as caught:
        config_of(made)
    return caught.value


def test_minicpm_gets_its_three_scales() -> None:
    scales = {"embedding_scale": 12.0, "residual_scale": 0.5, "logit_scale": 4.0}
    config = config_of(file("minicpm", **RMS, **scales))
    spec = family_of(config).read(config)
    assert spec.embed_scale == 12.0
    assert spec.residual_scale == pytest.approx(0.5, rel=1e-12)
    assert spec.logit_scale == pytest.approx(0.25, rel=1e-12)


def test_an_unknown_architecture_is_refused_with_near_misses() -> None:
    error = refusal(file("llamo"))
    assert error.code == "unsupported-architecture"
    assert "'llama'" in error.next
    assert "gemma3" in error.why


def test_a_part_of_a_split_model_is_refused() -> None:
    made = file("llama", **RMS)
    cast(dict[str, Any], made.metadata)["split.count"] = 3
    error = refusal(made)
    assert error.code == "gguf-split"
    assert "--merge" in error.next


def test_all_problems_are_named_at_once() -> None:
    keys = {"block_count": "two", "embedding_length": 0, "rope.dimension_count": 3}
    why = refusal(file("llama", **keys)).why
    assert "llama.block_count" in why
    assert "llama.embedding_length" in why
    assert "llama.rope.dimension_count" in why
    assert "llama.attention.layer_norm_rms_epsilon: is missing" in why


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.causal", False),
        ("attention.scale", 0.5),
        ("attention.value_length", 16),
        ("expert_gating_func", 2),
        ("rope.scaling.type", "su"),
        ("attention.head_count_kv", [1, 2]),
        ("new_feature", 1),
    ],
)
def test_a_key_that_would_change_the_model_is_refused(key: str, value: object) -> None:
    error = refusal(file("llama", **RMS, **{key: value}))
    assert f"llama.{key}" in error.why


def test_zero_means_none_where_llama_cpp_says_so() -> None:
    config = config_of(file("llama", **RMS, **{"attention.sliding_window": 0, "expert_count": 0}))
    assert config["model_type"] == "llama"


def test_one_value_for_every_block_counts_as_one() -> None:
    config = config_of(file("llama", **RMS, **{"attention.head_count_kv": [2, 2]}))
    assert config["num_key_value_heads"] == 2


def test_a_list_of_factors_is_llama_3s_scaling() -> None:
    made = file("llama", ("rope_freqs.weight",), **RMS, **{"attention.key_length": 32})
    scaling = cast(dict[str, Any], config_of(made)["rope_scaling"])
    assert scaling["short_factor"] == scaling["long_factor"] == list(range(1, 17))


def test_every_end_is_an_end() -> None:
    made = file("llama", **RMS)
    metadata = cast(dict[str, Any], made.metadata)
    metadata |= {
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 3,
        "tokenizer.ggml.tokens": ["a", "</s>", "<|im_end|>", "<eot>", "<|end|>"],
        "tokenizer.ggml.token_type": [1, 3, 3, 3, 1],
        "tokenizer.chat_template": "{{ messages }}",
    }
    # <|end|> is an ordinary word here, not a control token.
    assert generation_config_of(made) == {"eos_token_id": [1, 3, 2]}
    assert config_of(made)["eos_token_id"] == 1


def test_the_largest_gemmas_scale_their_scores_by_the_width() -> None:
    for arch, depth in (("gemma2", 46), ("gemma3", 62)):
        keys = {"attention.key_length": 16, **RMS}
        assert config_of(file(arch, **keys, block_count=depth))["query_pre_attn_scalar"] == 8
        assert config_of(file(arch, **keys))["query_pre_attn_scalar"] == 16


def test_a_file_without_an_embedding_is_no_language_model() -> None:
    made = file("llama", **RMS)
    cast(dict[str, Any], made.tensors).clear()
    assert "token_embd.weight" in refusal(made).why
