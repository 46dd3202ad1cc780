"""One small model per architecture of llama.cpp, with what its converter does to the tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.models.gguf.writing import Array, Config, Move
from tests.models.hybrids import HYBRIDS

_LLAMA: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_TIED = {"tie_word_embeddings": True}
_MHA = {**_LLAMA, "num_key_value_heads": 8}
_NEOX = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
_GPT2: dict[str, Any] = {
    "vocab_size": 320,
    "n_embd": 256,
    "n_layer": 2,
    "n_head": 8,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_FALCON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def unchanged(name: str, rows: Array, config: Config) -> Array:
    """Most families."""
    del name, config
    return rows


def paired(name: str, rows: Array, config: Config) -> Array:
    """Channels that rotate together lie side by side: i and i + half become 2i and 2i + 1."""
    for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if part in name:
            halves = rows.reshape(config[heads], 2, -1, *rows.shape[1:])
            return halves.swapaxes(1, 2).reshape(rows.shape)
    return rows


def one_plus(name: str, rows: Array, config: Config) -> Array:
    """Norms are stored whole."""
    del config
    return rows + np.float32(1) if name.endswith("norm.weight") else rows


def transposed(name: str, rows: Array, config: Config) -> Array:
    """GPT-2's Conv1D; `writing.py` turns it before its rows are quantised."""
    return unchanged(name, rows, config)


def by_part(name: str, rows: Array, config: Config) -> Array:
    """Heads of queries, keys and values in turn become all queries, all keys, all values."""
    if "query_key_value" not in name:
        return rows
    heads = config.get("num_attention_heads") or config["n_head"]
    split = rows.reshape(heads, 3, -1, *rows.shape[1:])
    return split.swapaxes(0, 1).reshape(rows.shape)


def by_part_grouped(name: str, rows: Array, config: Config) -> Array:
    """The same where several queries share a key and a value (Falcon)."""
    if "query_key_value" not in name:
        return rows
    groups = config["num_kv_heads"]
    split = rows.reshape(groups, config["num_attention_heads"] // groups + 2, -1, *rows.shape[1:])
    parts = (split[:, :-2], split[:, -2:-1], split[:, -1:])
    return np.concatenate([part.reshape(-1, *rows.shape[1:]) for part in parts])


@dataclass(frozen=True, slots=True)
class Case:
    """A model.

    Attributes:
        name: Of the test.
        arch: What llama.cpp calls it.
        model_type: What transformers calls it.
        keys: Of its config.
        kinds: Type of its matrices.
        move: See `writing.write`.
    """

    name: str
    arch: str
    model_type: str
    keys: dict[str, Any] = field(default_factory=dict)
    kinds: str = "Q8_0"
    move: Move = unchanged


def _rope(kind: str, **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **numbers}}


_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LONG = {
    "short_factor": [1.0 + 0.1 * i for i in range(16)],
    "long_factor": [2.0 + 0.3 * i for i in range(16)],
}


def _moe(name: str, **more: Any) -> dict[str, Any]:
    return {**HYBRIDS[name].keys, "hidden_size": 256, "intermediate_size": 256, **more}


def _llama(kinds: str, name: str = "", **keys: Any) -> Case:
    named = name or f"llama-{kinds}"
    return Case(named, "llama", "llama", {**_LLAMA, **keys}, kinds, paired)


CASES = (
    *(_llama(kind) for kind in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")),
    _llama("Q6_K"),
    _llama("Q4_K_M"),
    _llama("Q8_0", "llama3-rope", **_rope("llama3", **_LLAMA3), tie_word_embeddings=True),
    _llama("Q8_0", "llama-biases", attention_bias=True, mlp_bias=True),
    _llama("Q8_0", "llama-linear", **_rope("linear", factor=4.0)),
    _llama(
        "Q8_0",
        "llama-yarn",
        **_rope("yarn", factor=2.0, original_max_position_embeddings=32),
    ),
    Case("mistral", "llama", "mistral", {**_LLAMA, "sliding_window": 9}, "Q4_K_M", paired),
    Case("mixtral", "llama", "mixtral", _moe("mixtral"), move=paired),
    Case("qwen2", "qwen2", "qwen2", {**_LLAMA, "tie_word_embeddings": True}, "Q4_K_M"),
    Case("qwen3", "qwen3", "qwen3", {**_LLAMA, "head_dim": 64}, "Q4_0"),
    Case("phi2", "phi2", "phi", {**_MHA, **_rope("default", partial_rotary_factor=0.5)}),
    Case("phi3", "phi3", "phi3", {**_LLAMA, "sliding_window": 9}, "Q4_K_M"),
    Case(
        "phi3-long",
        "phi3",
        "phi3",
        {**_LLAMA, **_rope("longrope", **_LONG, original_max_position_embeddings=16)},
    ),
    Case("gemma", "gemma", "gemma", {**_LLAMA, **_TIED, "head_dim": 64}, "Q8_0", one_plus),
    Case(
        "gemma2",
        "gemma2",
        "gemma2",
        {
            **_LLAMA,
            "tie_word_embeddings": True,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "sliding_window": 9,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        "Q6_K",
        one_plus,
    ),
    Case(
        "gemma3",
        "gemma3",
        "gemma3_text",
        {
            **_LLAMA,
            "tie_word_embeddings": True,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "sliding_window": 9,
            "num_hidden_layers": 6,
        },
        "Q4_0",
        one_plus,
    ),
    Case("stablelm", "stablelm", "stablelm", {**_LLAMA, "use_qkv_bias": True}),
    Case(
        "stablelm-12b",
        "stablelm",
        "stablelm",
        {**_LLAMA, "use_parallel_residual": True, "qk_layernorm": True},
    ),
    Case("gpt2", "gpt2", "gpt2", _GPT2, "Q8_0", transposed),
    Case(
        "gptneox",
        "gptneox",
        "gpt_neox",
        {**_NEOX, **_rope("default", partial_rotary_factor=0.25)},
        "Q8_0",
        by_part,
    ),
    Case(
        "bloom",
        "bloom",
        "bloom",
        {
            "vocab_size": 320,
            "hidden_size": 256,
            "n_layer": 2,
            "n_head": 8,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "Q8_0",
        by_part,
    ),
    Case("falcon", "falcon", "falcon", {**_FALCON, "num_kv_heads": 1}, "Q8_0", by_part_grouped),
    Case(
        "falcon-40b",
        "falcon",
        "falcon",
        {**_FALCON, "num_kv_heads": 2, "new_decoder_architecture": True},
        "Q6_K",
        by_part_grouped,
    ),
    Case("starcoder", "starcoder", "gpt_bigcode", {**_GPT2, "multi_query": True}),
    Case("starcoder2", "starcoder2", "starcoder2", {**_LLAMA, "sliding_window": None}),
    Case("olmo", "olmo", "olmo", {**_LLAMA, "clip_qkv": 0.5}, "Q8_0", paired),
    Case("olmo2", "olmo2", "olmo2", _LLAMA, "Q5_0"),
    Case("olmoe", "olmoe", "olmoe", _moe("olmoe", clip_qkv=None)),
    Case(
        "granite",
        "granite",
        "granite",
        {
            **_LLAMA,
            "attention_multiplier": 0.25,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 8.0,
            "tie_word_embeddings": True,
        },
        "Q4_K_M",
        paired,
    ),
    Case("granitemoe", "granitemoe", "granitemoe", _moe("granitemoe"), "Q8_0", paired),
    Case("cohere", "command-r", "cohere", {**_LLAMA, "tie_word_embeddings": True}),
    Case(
        "nemotron",
        "nemotron",
        "nemotron",
        {**_LLAMA, "head_dim": 32, **_rope("default", partial_rotary_factor=0.5)},
        "Q8_0",
        one_plus,
    ),
    Case("smollm3", "smollm3", "smollm3", {**_LLAMA, "num_hidden_layers": 4}, "Q8_0", paired),
    Case(
        "qwen2moe",
        "qwen2moe",
        "qwen2_moe",
        _moe(
            "qwen2_moe",
            use_sliding_window=False,
            layer_types=None,
            moe_intermediate_size=128,
            shared_expert_intermediate_size=256,
        ),
    ),
    Case(
        "qwen3moe",
        "qwen3moe",
        "qwen3_moe",
        _moe(
            "qwen3_moe",
            mlp_only_layers=[],
            decoder_sparse_step=1,
            moe_intermediate_size=128,
            norm_topk_prob=True,
        ),
    ),
)
