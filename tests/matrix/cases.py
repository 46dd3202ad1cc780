"""One small model per family and special feature, with random weights.

Each keeps every special feature of its family on at once: windows shorter than the sequence, odd
counts of heads, caps, scales, biases. Keys are those of transformers' own config classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.models.hybrids import HYBRIDS

CONTEXT, CHUNK = 40, 24

_LLAMA: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_MHA = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
_OPT = {key: value for key, value in _MHA.items() if key != "intermediate_size"}
_GPT2: dict[str, Any] = {
    "vocab_size": 320,
    "n_embd": 96,
    "n_layer": 2,
    "n_head": 6,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_NEO: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 96,
    "num_layers": 2,
    "num_heads": 6,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_FALCON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
    "ffn_hidden_size": 160,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)],
}


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table.

    Attributes:
        name: Of the row; unique.
        model_type: What config.json says.
        feature: What the case keeps on, in a few words.
        keys: Of config.json.
        context: Positions of the program.
        attention: transformers' implementation of it.
        note: What makes the tolerance or the reference special.
    """

    name: str
    model_type: str
    feature: str
    keys: dict[str, Any] = field(default_factory=dict)
    context: int = CONTEXT
    attention: str = "eager"
    note: str = ""


def _llama(name: str, model_type: str, feature: str, note: str = "", **keys: Any) -> Case:
    return Case(name, model_type, feature, {**_LLAMA, **keys}, note=note)


CASES: tuple[Case, ...] = (
    _llama(
        "llama",
        "llama",
        "llama3 rope scaling, biases",
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    _llama("mistral", "mistral", "sliding window", sliding_window=9),
    _llama("qwen2", "qwen2", "qkv bias, tied head", tie_word_embeddings=True),
    _llama("qwen3", "qwen3", "qk-norm, wide heads", head_dim=32),
    Case("gpt2", "gpt2", "Conv1D, learned positions", _GPT2),
    Case(
        "cerebras-gpt",
        "gpt2",
        "scores scaled by layer, own FFN size",
        {
            **_GPT2,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "gelu",
            "n_inner": 160,
        },
    ),
    Case("opt", "opt", "positions offset by 2", {**_OPT, "ffn_dim": 160}),
    Case(
        "opt-350m",
        "opt",
        "post-norm, project_in/out",
        {**_OPT, "ffn_dim": 160, "do_layer_norm_before": False, "word_embed_proj_dim": 64},
    ),
    Case(
        "galactica",
        "opt",
        "no biases, GELU",
        {**_OPT, "ffn_dim": 160, "enable_bias": False, "activation_function": "gelu"},
    ),
    Case(
        "bloom",
        "bloom",
        "ALiBi, interleaved fused qkv, embedding norm",
        {
            "vocab_size": 320,
            "hidden_size": 96,
            "n_layer": 2,
            "n_head": 6,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    Case(
        "gpt-neo",
        "gpt_neo",
        "local and global windows, unscaled scores",
        {
            **_NEO,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 7,
            "intermediate_size": 160,
        },
    ),
    Case(
        "gpt-neox",
        "gpt_neox",
        "parallel residual, partial rotation",
        {
            **_MHA,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25,
            },
        },
    ),
    Case(
        "gpt-neox-serial",
        "gpt_neox",
        "serial residual, half rotation",
        {
            **_MHA,
            "use_parallel_residual": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    Case("gptj", "gptj", "interleaved partial rotation, parallel", {**_GPT2, "rotary_dim": 8}),
    Case("codegen", "codegen", "qkv fused by part", {**_GPT2, "n_head": 8, "rotary_dim": 8}),
    _llama(
        "phi",
        "phi",
        "parallel block, partial rotation, qk layer norm, head bias",
        qk_layernorm=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    ),
    _llama("phi3", "phi3", "fused maps, window", sliding_window=9),
    _llama(
        "phi3-short",
        "phi3",
        "longrope up to its switch",
        rope_parameters=_LONGROPE,
        original_max_position_embeddings=48,
    ),
    _llama(
        "phi3-long",
        "phi3",
        "longrope beyond its switch",
        rope_parameters=_LONGROPE,
        original_max_position_embeddings=16,
        note="long factors for every length",
    ),
    _llama("stablelm", "stablelm", "layer norms, partial rotation, qkv bias", use_qkv_bias=True),
    _llama(
        "stablelm-12b",
        "stablelm",
        "parallel residual, qk-norm per head",
        qk_layernorm=True,
        use_parallel_residual=True,
    ),
    _llama("gemma", "gemma", "1 + w norms, scaled embedding, tanh GELU", head_dim=32),
    _llama(
        "gemma2",
        "gemma2",
        "soft caps, sandwich norms, windows",
        head_dim=32,
        sliding_window=9,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=4.0,
    ),
    _llama(
        "gemma3",
        "gemma3_text",
        "two rotations, qk-norm, windows",
        head_dim=32,
        sliding_window=9,
        query_pre_attn_scalar=24,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    Case("gpt-bigcode", "gpt_bigcode", "multi-query, fused qkv", {**_GPT2, "multi_query": True}),
    _llama(
        "granite",
        "granite",
        "factors on embedding, residuals, scores, logits",
        embedding_multiplier=12.0,
        residual_multiplier=0.22,
        attention_multiplier=0.1,
        logits_scaling=6.0,
        tie_word_embeddings=True,
    ),
    _llama("olmo", "olmo", "norms without vectors, clip_qkv", clip_qkv=0.5),
    _llama("olmo2", "olmo2", "norms after the sub-layers, qk-norm over all heads"),
    _llama("nemotron", "nemotron", "LayerNorm1P, squared ReLU, partial rotation", head_dim=16),
    _llama("starcoder2", "starcoder2", "biases, tanh GELU, window", sliding_window=9),
    _llama("cohere", "cohere", "parallel, interleaved rotation, logit scale"),
    _llama("smollm3", "smollm3", "blocks without rotation", num_hidden_layers=4),
    _llama(
        "ministral",
        "ministral",
        "full and sliding blocks",
        sliding_window=9,
        head_dim=32,
        layer_types=["full_attention", "sliding_attention"],
    ),
    Case("falcon", "falcon", "multi-query, parallel, one norm", _FALCON),
    Case(
        "falcon-alibi",
        "falcon",
        "ALiBi, serial, biases",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
        attention="sdpa",
        note="sdpa: transformers 5.23's eager form adds the biases twice",
    ),
    Case(
        "falcon-40b",
        "falcon",
        "grouped keys, two norms",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    Case(
        "mpt",
        "mpt",
        "ALiBi, clip_qkv, no biases",
        {
            "vocab_size": 320,
            "d_model": 96,
            "n_layers": 2,
            "n_heads": 6,
            "max_seq_len": 64,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "attn_config": {"clip_qkv": 0.5, "alibi_bias_max": 8},
        },
    ),
    _llama(
        "minicpm",
        "minicpm",
        "scaled embedding, depth and logits",
        "reference: transformers' Granite",
        scale_emb=12,
        scale_depth=1.4,
        dim_model_base=32,
    ),
    _llama(
        "mobilellm",
        "mobilellm",
        "shared embedding",
        "reference: transformers' Llama",
        share_embedding=True,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    ),
    _llama(
        "mobilellm-ls",
        "mobilellm",
        "every block runs twice",
        "reference: transformers' Llama",
        share_embedding=True,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        layer_sharing=True,
    ),
    Case(
        "qwen-1",
        "qwen",
        "fused biased qkv, gate and up counted together",
        {
            "vocab_size": 320,
            "hidden_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "kv_channels": 16,
            "intermediate_size": 320,
            "seq_length": 64,
            "layer_norm_epsilon": 1e-6,
            "no_bias": True,
            "use_dynamic_ntk": True,
            "use_logn_attn": True,
        },
        note="reference: transformers' Qwen 2",
    ),
    _llama("llava", "llava", "text half beside a vision tower", "reference: transformers' Llama"),
    Case(
        "openelm",
        "openelm",
        "heads and channels of its own per layer, fused maps",
        {
            "vocab_size": 320,
            "model_dim": 96,
            "head_dim": 16,
            "num_transformer_layers": 2,
            "num_query_heads": [4, 8],
            "num_kv_heads": [2, 4],
            "ffn_multipliers": [0.75, 1.6],
            "ffn_dim_divisor": 32,
            "max_context_length": 64,
            "share_input_output_layers": True,
            "normalize_qk_projections": True,
            "activation_fn_name": "swish",
            "ffn_with_glu": True,
            "rope_freq_constant": 10000,
            "normalization_layer_name": "rms_norm",
        },
        note="reference: written from the paper",
    ),
    _llama(
        "mobillama",
        "llama",
        "one feed-forward for all blocks",
        "reference: transformers' Llama",
        num_hidden_layers=3,
    ),
    Case(
        "dclm",
        "openlm",
        "gain-only norms, over all queries and keys too",
        {
            "params_args_dict": {
                "hidden_dim": 96,
                "n_layers": 2,
                "n_heads": 6,
                "vocab_size": 320,
                "seq_len": 64,
                "model_norm": "gain_only_lp_layer_norm",
                "qk_norm": True,
                "ffn_type": "swiglu_torch",
                "weight_tying": False,
                "post_embed_norm": False,
                "positional_embedding_type": "rotary",
            }
        },
        note="reference: written from open_lm's source",
    ),
    *(
        Case(name.replace("_", "-"), name, feature, HYBRIDS[name].keys)
        for name, feature in (
            ("mixtral", "mixture of experts, window"),
            ("qwen2_moe", "shared expert, windows"),
            ("qwen3_moe", "mixture of experts, a dense block"),
            ("olmoe", "mixture of experts, clip_qkv"),
            ("granitemoe", "mixture of experts, factors"),
            ("phimoe", "sparse mixer routing, longrope"),
            ("minicpm3", "latent attention (MLA)"),
            ("lfm2", "short convolutions beside attention"),
            ("mamba2", "state space model"),
            ("recurrent_gemma", "gated linear recurrence, local attention"),
        )
    ),
)
