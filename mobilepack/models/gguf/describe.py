"""The config.json of each family from the metadata that llama.cpp's converter writes.

What llama.cpp's model files take for granted (src/models/*.cpp) and the converter leaves out is
filled in here.
"""

from __future__ import annotations

import math

from mobilepack.models.config import Json
from mobilepack.models.gguf.keys import Keys

Config = dict[str, Json]


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


def llama(keys: Keys) -> Config:
    """Return the config of Llama, Mistral or Mixtral, which llama.cpp does not tell apart."""
    config = _sizes(keys) | _rms(keys) | _rotation(keys) | {"head_dim": keys.head_dim()}
    if keys.integer("expert_count", 0, minimum=0):
        config["num_local_experts"] = keys.integer("expert_count")
        config["num_experts_per_tok"] = keys.integer("expert_used_count")
        return config | {"sliding_window": keys.window()}
    if (window := keys.window()) is not None:
        return config | {"sliding_window": window}
    mlp_bias = keys.has_tensor("ffn_down.bias")
    return config | {"attention_bias": keys.has_tensor("attn_q.bias"), "mlp_bias": mlp_bias}


def llama_type(keys: Keys) -> str:
    """Return the family of a `llama` file."""
    if keys.integer("expert_count", 0, minimum=0):
        return "mixtral"
    return "mistral" if keys.window() is not None else "llama"


def qwen2(keys: Keys) -> Config:
    """Return the config of `qwen2`."""
    return _sizes(keys) | _rms(keys) | _rotation(keys) | {"head_dim": keys.head_dim()}


def qwen3(keys: Keys) -> Config:
    """Return the config of `qwen3`."""
    return qwen2(keys) | {"attention_bias": keys.has_tensor("attn_q.bias")}


def _experts(keys: Keys, normalised: bool) -> Config:
    keys.fixed("expert_weights_norm", normalised)
    return {
        "num_experts": keys.integer("expert_count"),
        "num_experts_per_tok": keys.integer("expert_used_count"),
        "norm_topk_prob": normalised,
    }


def _expert_size(keys: Keys) -> Config:
    return {"moe_intermediate_size": keys.integer("expert_feed_forward_length")}


def qwen2_moe(keys: Keys) -> Config:
    """Return the config of `qwen2_moe`."""
    shared = keys.integer("expert_shared_feed_forward_length")
    config = qwen2(keys) | _experts(keys, normalised=False) | _expert_size(keys)
    return config | {"shared_expert_intermediate_size": shared}


def qwen3_moe(keys: Keys) -> Config:
    """Return the config of `qwen3_moe`."""
    return qwen3(keys) | _experts(keys, normalised=True) | _expert_size(keys)


def olmoe(keys: Keys) -> Config:
    """Return the config of `olmoe`."""
    return _sizes(keys) | _rms(keys) | _rotation(keys) | _experts(keys, normalised=False)


def phi3(keys: Keys) -> Config:
    """Return the config of `phi3`."""
    config = _sizes(keys) | _rms(keys) | _rotation(keys, partial=True)
    return config | {"sliding_window": keys.window()}


def gemma(keys: Keys) -> Config:
    """Return the config of `gemma`."""
    config = _sizes(keys) | _rms(keys) | _rotation(keys) | {"head_dim": keys.head_dim()}
    return config | {"hidden_activation": "gelu_pytorch_tanh"}


def _score_scale(keys: Keys, largest: int) -> int:
    """Return Gemma's `query_pre_attn_scalar`: its largest model, known by its depth, differs."""
    if keys.integer("block_count") == largest:
        return keys.integer("embedding_length") // keys.integer("attention.head_count")
    return keys.head_dim()


def gemma2(keys: Keys) -> Config:
    """Return the config of `gemma2`."""
    return gemma(keys) | {
        "query_pre_attn_scalar": _score_scale(keys, 46),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
        "sliding_window": keys.window() or 4096,
    }


def gemma3(keys: Keys) -> Config:
    """Return the config of `gemma3`."""
    window = keys.window()
    base = keys.number("rope.freq_base_swa", 10_000.0)
    config = gemma(keys) | {
        "query_pre_attn_scalar": _score_scale(keys, 62),
        "rope_local_base_freq": base,
        "sliding_window": window or 4096,
        "sliding_window_pattern": 6 if window else 1,
    }
    if (cap := keys.optional("final_logit_softcapping")) is not None:
        config["final_logit_softcapping"] = cap
    return config


def stablelm(keys: Keys) -> Config:
    """Return the config of `stablelm`."""
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


def phi2(keys: Keys) -> Config:
    """Return the config of `phi2`."""
    return (
        _sizes(keys)
        | _rotation(keys, partial=True)
        | {"layer_norm_eps": keys.number("attention.layer_norm_epsilon")}
    )


def gpt2(keys: Keys) -> Config:
    """Return the config of `gpt2`."""
    return {
        "n_embd": keys.integer("embedding_length"),
        "n_layer": keys.integer("block_count"),
        "n_head": keys.integer("attention.head_count"),
        "n_positions": keys.integer("context_length"),
        "n_inner": keys.integer("feed_forward_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
    }


def gpt_bigcode(keys: Keys) -> Config:
    """Return the config of `gpt_bigcode`."""
    multi_query = keys.kv_heads() == 1
    if not multi_query:
        keys.problem("attention.head_count_kv", "is not 1; StarCoder has one for all queries")
    return gpt2(keys) | {"multi_query": multi_query, "activation_function": "gelu_pytorch_tanh"}


def falcon(keys: Keys) -> Config:
    """Return the config of Falcon; 7B is the new kind with one key-value head and one norm."""
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


def gpt_neox(keys: Keys) -> Config:
    """Return the config of `gpt_neox`."""
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


def bloom(keys: Keys) -> Config:
    """Return the config of `bloom`."""
    if keys.integer("feed_forward_length") != 4 * keys.integer("embedding_length"):
        keys.problem("feed_forward_length", "is not four times embedding_length")
    return {
        "hidden_size": keys.integer("embedding_length"),
        "n_layer": keys.integer("block_count"),
        "n_head": keys.integer("attention.head_count"),
        "seq_length": keys.integer("context_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
    }


def starcoder2(keys: Keys) -> Config:
    """Return the config of `starcoder2`."""
    return (
        _sizes(keys)
        | _rotation(keys)
        | {
            "norm_epsilon": keys.number("attention.layer_norm_epsilon"),
            "use_bias": keys.has_tensor("attn_output.bias"),
            "sliding_window": keys.window(),
        }
    )


def olmo(keys: Keys) -> Config:
    """Return the config of `olmo`."""
    keys.fixed("attention.layer_norm_epsilon", 1e-5)
    clip = keys.optional("attention.clamp_kqv")
    return _sizes(keys) | _rotation(keys) | {"clip_qkv": clip}


def olmo2(keys: Keys) -> Config:
    """Return the config of `olmo2`."""
    keys.fixed("attention.sliding_window", 0)  # that would be OLMo 3
    return _sizes(keys) | _rms(keys) | _rotation(keys)


def granite(keys: Keys) -> Config:
    """Return the config of `granite`."""
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


def minicpm(keys: Keys) -> Config:
    """Return the config of MiniCPM; without scales it is an old file of 2B, whose are known."""
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


def cohere(keys: Keys) -> Config:
    """Return the config of `cohere`."""
    return (
        _sizes(keys)
        | _rotation(keys)
        | {
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
            "logit_scale": keys.number("logit_scale"),
        }
    )


def nemotron(keys: Keys) -> Config:
    """Return the config of `nemotron`."""
    eps = keys.number("attention.layer_norm_epsilon")
    keys.number("attention.layer_norm_rms_epsilon", eps)  # the converter writes both
    return _sizes(keys) | _rotation(keys, partial=True) | {"norm_eps": eps}


def smollm3(keys: Keys) -> Config:
    """Return the config of `smollm3`."""
    return (
        _sizes(keys)
        | _rms(keys)
        | _rotation(keys)
        | {"no_rope_layer_interval": 4, "attention_bias": keys.has_tensor("attn_q.bias")}
    )
