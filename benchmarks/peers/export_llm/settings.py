"""Say which settings export_llm is given: its documented fast ones, 8da4w in groups of 32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROGRAM_NAME = "model.pte"

# executorch 1.5.1, examples/models/llama/convert_weights.py and model.py.
_META_NAMES = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
_META_LAYER_NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm_fn",
    "self_attn.k_norm": "attention.k_norm_fn",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}


def meta_name(name: str) -> str:
    """Translate a Hugging Face tensor name into Meta's.

    Raises:
        KeyError: The name belongs to no family the benchmarks write.
    """
    if name in _META_NAMES:
        return _META_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"layers.{layer}.{_META_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def model_parameters(config: Mapping[str, Any]) -> dict[str, object]:
    """Return `params.json` in the words of executorch's `ModelArgs`.

    With llama3 rope scaling, `ModelArgs` has Meta's rotary form only. Weights are not
    reordered for it: they are random, and cost does not depend on their order.
    """
    scaling = config.get("rope_scaling")
    parameters: dict[str, object] = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "hidden_dim": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": config["rope_theta"],
        "attention_qkv_bias": False,
        "use_hf_rope": not scaling,
    }
    if scaling:
        parameters |= {"use_scaled_rope": True, "rope_scale_factor": int(scaling["factor"])}
    if config["model_type"] == "qwen3":
        parameters |= {"use_qk_norm": True, "qk_norm_before_rope": True}
    return parameters


def model_class(config: Mapping[str, Any]) -> str:
    """Choose the model class whose code path fits a config; sizes come from params.json."""
    if config["model_type"] == "qwen3":
        return "qwen3_0_6b"
    return "llama3_2" if config.get("rope_scaling") else "smollm2"


def export_config(config: Mapping[str, Any], folder: str, context: int) -> dict[str, object]:
    """Return export_llm's configuration (`LlmConfig`), as a mapping for YAML."""
    metadata = (
        f'{{"get_bos_id": {config["bos_token_id"]}, "get_eos_ids": [{config["eos_token_id"]}]}}'
    )
    return {
        "base": {
            "model_class": model_class(config),
            "checkpoint": f"{folder}/meta.pt",
            "params": f"{folder}/params.json",
            "metadata": metadata,
        },
        "model": {
            "use_kv_cache": True,
            "use_sdpa_with_kv_cache": True,
            "dtype_override": "fp32",
        },
        "quantization": {"qmode": "8da4w", "group_size": 32, "embedding_quantize": "8,0"},
        "export": {
            "max_seq_length": context,
            "max_context_length": context,
            "output_name": f"{folder}/{PROGRAM_NAME}",
        },
        "backend": {"xnnpack": {"enabled": True, "extended_ops": True}},
    }
