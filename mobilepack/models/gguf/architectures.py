"""What llama.cpp calls each family, and how its metadata become that family's config.json.

Architectures are named as in llama.cpp's src/llama-arch.cpp; what its model files take for granted
(src/models/*.cpp) and its converter leaves out is filled in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mobilepack.models.config import Json
from mobilepack.models.gguf.keys import Keys
from mobilepack.models.weight_file import TensorInfo

Config = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture.

    Attributes:
        model_type: Of the family that reads it.
        describe: Returns the family's config, except vocabulary, ends and tying.
        pairs: The converter brought the channels that rotate together side by side.
    """

    model_type: str | Callable[[Keys], str]
    describe: Callable[[Keys], Config]
    pairs: bool = False


def _sizes(keys: Keys) -> Config:
    """Return what nearly every config says, by Llama's names."""
    head = keys.head_dim()
    own: Config = {"head_dim": head} if head != keys.shared_head_dim() else {}
    return own | {
        "hidden_size": keys.integer("embedding_length"),
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": keys.integer("attention.head_count"),
        "num_key_value_heads": keys.kv_heads(),
        "max_position_embeddings": keys.integer("context_length"),
    }


def _rms(keys: Keys) -> Config:
    return {"rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")}


def _rotation(keys: Keys, *, partial: bool = False) -> Config:
    """Return base, scaling and rotated share; without `partial` the whole head must rotate."""
    config: Config = {"rope_theta": keys.number("rope.freq_base", 10_000.0), **keys.rope_scaling()}
    head = keys.head_dim()
    rotated = keys.integer("rope.dimension_count", head)
    if partial:
        share = rotated / head
        # Readers take int(head * share), which must not fall short by a rounding.
        config["partial_rotary_factor"] = (
            share if int(head * share) == rotated else math.nextafter(share, 2.0)
        )
    elif rotated != head:
        keys.problem("rope.dimension_count", f"is {rotated}; this family rotates all {head}")
    return config


def _llama(keys: Keys) -> Config:
    """Llama, Mistral and Mixtral, which llama.cpp does not tell apart."""
    config = _sizes(keys) | _rms(keys) | _rotation(keys) | {"head_dim": keys.head_dim()}
    if keys.integer("expert_count", 0, minimum=0):
        config["num_local_experts"] = keys.integer("expert_count")
        config["num_experts_per_tok"] = keys.integer("expert_used_count")
        return config | {"sliding_window": keys.window()}
    if (window := keys.window()) is not None:
        return config | {"sliding_window": window}
    mlp_bias = keys.has_tensor("ffn_down.bias")
    return config | {"attention_bias": keys.has_tensor("attn_q.bias"), "mlp_bias": mlp_bias}


def _llama_type(keys: Keys) -> str:
    if keys.integer("expert_count", 0, minimum=0):
        return "mixtral"
    return "mistral" if keys.window() is not None else "llama"


def _qwen2(keys: Keys) -> Config:
    return _sizes(keys) | _rms(keys) | _rotation(keys) | {"head_dim": keys.head_dim()}


def _qwen3(keys: Keys) -> Config:
    return _qwen2(keys) | {"attention_bias": keys.has_tensor("attn_q.bias")}


def _experts(keys: Keys, normalised: bool) -> Config:
    keys.fixed("expert_weights_norm", normalised)
    return {
        "num_experts": keys.integer("expert_count"),
        "num_experts_per_tok": keys.integer("expert_used_count"),
        "norm_topk_prob": normalised,
    }


def _expert_size(keys: Keys) -> Config:
    return {"moe_intermediate_size": keys.integer("expert_feed_forward_length")}


def _qwen2_moe(keys: Keys) -> Config:
    shared = keys.integer("expert_shared_feed_forward_length")
    config = _qwen2(keys) | _experts(keys, normalised=False) | _expert_size(keys)
    return config | {"shared_expert_intermediate_size": shared}


def _qwen3_moe(keys: Keys) -> Config:
    return _qwen3(keys) | _experts(keys, normalised=True) | _expert_size(keys)


def _olmoe(keys: Keys) -> Config:
    return _sizes(keys) | _rms(keys) | _rotation(keys) | _experts(keys, normalised=False)


def _phi3(keys: Keys) -> Config:
    config = _sizes(keys) | _rms(keys) | _rotation(keys, partial=True)
    return config | {"sliding_window": keys.window()}


def _gemma(keys: Keys) -> Config:
    config = _sizes(keys) | _rms(keys) | _rotation(keys) | {"head_dim": keys.head_dim()}
    return config | {"hidden_activation": "gelu_pytorch_tanh"}


def _score_scale(keys: Keys, largest: int) -> int:
    """Return Gemma's `query_pre_attn_scalar`: its largest model, known by its depth, differs."""
    if keys.integer("block_count") == largest:
        return keys.integer("embedding_length") // keys.integer("attention.head_count")
    return keys.head_dim()


def _gemma2(keys: Keys) -> Config:
    return _gemma(keys) | {
        "query_pre_attn_scalar": _score_scale(keys, 46),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
        "sliding_window": keys.window() or 4096,
    }


def _gemma3(keys: Keys) -> Config:
    window = keys.window()
    base = keys.number("rope.freq_base_swa", 10_000.0)
    config = _gemma(keys) | {
        "query_pre_attn_scalar": _score_scale(keys, 62),
        "rope_local_base_freq": base,
        "sliding_window": window or 4096,
        "sliding_window_pattern": 6 if window else 1,
    }
    if (cap := keys.optional("final_logit_softcapping")) is not None:
        config["final_logit_softcapping"] = cap
    return config


def _stablelm(keys: Keys) -> Config:
    keys.flag("use_parallel_residual", False)  # the converter guesses it; the tensors are sure
    return (
        _sizes(keys)
        | _rotation(keys, partial=True)
        | {
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
            # As in llama.cpp's model: a parallel block does not have this norm.
            "use_parallel_residual": not keys.has_tensor("ffn_norm.weight"),
            "use_qkv_bias": keys.has_tensor("attn_q.bias"),
            "qk_layernorm": keys.has_tensor("attn_q_norm.weight"),
        }
    )


def _phi2(keys: Keys) -> Config:
    return (
        _sizes(keys)
        | _rotation(keys, partial=True)
        | {"layer_norm_eps": keys.number("attention.layer_norm_epsilon")}
    )


def _gpt2(keys: Keys) -> Config:
    return {
        "n_embd": keys.integer("embedding_length"),
        "n_layer": keys.integer("block_count"),
        "n_head": keys.integer("attention.head_count"),
        "n_positions": keys.integer("context_length"),
        "n_inner": keys.integer("feed_forward_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
    }


def _gpt_bigcode(keys: Keys) -> Config:
    multi_query = keys.kv_heads() == 1
    if not multi_query:
        keys.problem("attention.head_count_kv", "is not 1; StarCoder has one for all queries")
    return _gpt2(keys) | {"multi_query": multi_query, "activation_function": "gelu_pytorch_tanh"}


def _falcon(keys: Keys) -> Config:
    """Falcon 7B is the new architecture with one key-value head and one norm."""
    return {
        "hidden_size": keys.integer("embedding_length"),
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": keys.integer("attention.head_count"),
        "num_kv_heads": keys.kv_heads(),
        "ffn_hidden_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "new_decoder_architecture": True,
        "num_ln_in_parallel_attn": 2 if keys.has_tensor("attn_norm_2.weight") else 1,
        **_rotation(keys),
    }


def _gpt_neox(keys: Keys) -> Config:
    sizes = _sizes(keys)
    del sizes["num_key_value_heads"]
    return (
        sizes
        | _rotation(keys, partial=True)
        | {
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
            "use_parallel_residual": keys.flag("use_parallel_residual", True),
        }
    )


def _bloom(keys: Keys) -> Config:
    if keys.integer("feed_forward_length") != 4 * keys.integer("embedding_length"):
        keys.problem("feed_forward_length", "is not four times embedding_length")
    return {
        "hidden_size": keys.integer("embedding_length"),
        "n_layer": keys.integer("block_count"),
        "n_head": keys.integer("attention.head_count"),
        "seq_length": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
    }


def _starcoder2(keys: Keys) -> Config:
    return (
        _sizes(keys)
        | _rotation(keys)
        | {
            "norm_epsilon": keys.number("attention.layer_norm_epsilon"),
            "use_bias": keys.has_tensor("attn_output.bias"),
            "sliding_window": keys.window(),
        }
    )


def _olmo(keys: Keys) -> Config:
    keys.fixed("attention.layer_norm_epsilon", 1e-5)
    clip = keys.optional("attention.clamp_kqv")
    return _sizes(keys) | _rotation(keys) | {"clip_qkv": clip}


def _olmo2(keys: Keys) -> Config:
    keys.fixed("attention.sliding_window", 0)  # that would be OLMo 3
    return _sizes(keys) | _rms(keys) | _rotation(keys)


def _granite(keys: Keys) -> Config:
    config = _sizes(keys) | _rms(keys) | _rotation(keys)
    config |= {
        "attention_multiplier": keys.number("attention.scale", keys.head_dim() ** -0.5),
        "embedding_multiplier": keys.number("embedding_scale", 1.0),
        "residual_multiplier": keys.number("residual_scale", 1.0),
        "logits_scaling": keys.number("logit_scale"),
        "attention_bias": keys.has_tensor("attn_q.bias"),
    }
    if keys.integer("expert_count", 0, minimum=0):
        config["num_local_experts"] = keys.integer("expert_count")
        config["num_experts_per_tok"] = keys.integer("expert_used_count")
    return config


def _minicpm(keys: Keys) -> Config:
    """Without the three scales it is an old file of MiniCPM 2B, whose values are known."""
    depth, hidden = keys.integer("block_count"), keys.integer("embedding_length")
    residual = keys.number("residual_scale", 1.4 / depth**0.5)
    return (
        _sizes(keys)
        | _rms(keys)
        | _rotation(keys)
        | {
            "scale_emb": keys.number("embedding_scale", 12.0),
            "scale_depth": residual * depth**0.5,
            "dim_model_base": hidden / keys.number("logit_scale", hidden / 256),
        }
    )


def _cohere(keys: Keys) -> Config:
    return (
        _sizes(keys)
        | _rotation(keys)
        | {
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
            "logit_scale": keys.number("logit_scale"),
        }
    )


def _nemotron(keys: Keys) -> Config:
    eps = keys.number("attention.layer_norm_epsilon")
    keys.number("attention.layer_norm_rms_epsilon", eps)  # the converter writes both
    return _sizes(keys) | _rotation(keys, partial=True) | {"norm_eps": eps}


def _smollm3(keys: Keys) -> Config:
    return (
        _sizes(keys)
        | _rms(keys)
        | _rotation(keys)
        | {"no_rope_layer_interval": 4, "attention_bias": keys.has_tensor("attn_q.bias")}
    )


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture(_llama_type, _llama, pairs=True),
        "qwen2": Architecture("qwen2", _qwen2),
        "qwen2moe": Architecture("qwen2_moe", _qwen2_moe),
        "qwen3": Architecture("qwen3", _qwen3),
        "qwen3moe": Architecture("qwen3_moe", _qwen3_moe),
        "phi2": Architecture("phi", _phi2),
        "phi3": Architecture("phi3", _phi3),
        "gemma": Architecture("gemma", _gemma),
        "gemma2": Architecture("gemma2", _gemma2),
        "gemma3": Architecture("gemma3_text", _gemma3),
        "stablelm": Architecture("stablelm", _stablelm),
        "gpt2": Architecture("gpt2", _gpt2),
        "gptneox": Architecture("gpt_neox", _gpt_neox),
        "bloom": Architecture("bloom", _bloom),
        "falcon": Architecture("falcon", _falcon),
        "starcoder": Architecture("gpt_bigcode", _gpt_bigcode),
        "starcoder2": Architecture("starcoder2", _starcoder2),
        "olmo": Architecture("olmo", _olmo, pairs=True),
        "olmo2": Architecture("olmo2", _olmo2),
        "olmoe": Architecture("olmoe", _olmoe),
        "granite": Architecture("granite", _granite, pairs=True),
        "granitemoe": Architecture("granitemoe", _granite, pairs=True),
        "minicpm": Architecture("minicpm", _minicpm, pairs=True),
        "command-r": Architecture("cohere", _cohere),
        "nemotron": Architecture("nemotron", _nemotron),
        "smollm3": Architecture("smollm3", _smollm3, pairs=True),
    }
)
"""By `general.architecture`."""


def rotated_pairs(
    metadata: Mapping[str, Json], tensors: Mapping[str, TensorInfo]
) -> dict[str, int]:
    """Return the channels per head of every tensor whose rotated channels lie in pairs."""
    name = metadata.get("general.architecture")
    found = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if found is None or not found.pairs:
        return {}
    heads = {
        part: metadata.get(f"{name}.attention.{key}")
        for part, key in (("attn_q.", "head_count"), ("attn_k.", "head_count_kv"))
    }
    heads["attn_k."] = heads["attn_k."] or heads["attn_q."]
    return {
        key: info.shape[0] // count
        for key, info in tensors.items()
        for part, count in heads.items()
        if f".{part}" in key and isinstance(count, int) and count > 0
        if info.shape[0] % (2 * count) == 0
    }
