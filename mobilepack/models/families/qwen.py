"""Qwen 1: Llama in its own words, with fused and biased queries, keys and values.

The published checkpoints bring their own code (modeling_qwen.py). Beyond the trained length it
rescales rotation and scores from token to token; a program is built up to that length only.
"""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import PREFIXED, assembled
from mobilepack.models.families.names import At, stacked
from mobilepack.models.families.reading import Defaults, layer_count, uniform
from mobilepack.models.layer_spec import (
    AttentionSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
)
from mobilepack.models.spec import DecoderSpec

_END_OF_TEXT = 151643
_DEFAULTS = Defaults(8192, eos_id=_END_OF_TEXT)
_BLOCK = "transformer.h.{i}."
_QKV = At(_BLOCK + "attn.c_attn", stacked)

_NAMES: dict[str, str | At] = {
    "embed": "transformer.wte",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attn_norm": _BLOCK + "ln_1",
    "mlp_norm": _BLOCK + "ln_2",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "o": _BLOCK + "attn.c_proj",
    "gate": _BLOCK + "mlp.w2",
    "up": _BLOCK + "mlp.w1",
    "down": _BLOCK + "mlp.c_proj",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (Qwen/Qwen-1_8B configuration_qwen.py)."""
    reader.alias(max_position_embeddings="seq_length")
    reader.fixed("no_bias", True)
    reader.fixed("rotary_pct", 1.0)
    reader.fixed("scale_attn_weights", True)
    hidden, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    dim = reader.integer("kv_channels", 128)
    if heads * dim != hidden:
        reader.problem("kv_channels", f"is {dim}; times the heads it must be hidden_size")
    # `intermediate_size` counts gate and up together
    ffn = FeedForwardSpec(max(1, reader.integer("intermediate_size") // 2))
    rope = RopeSpec("default", reader.number("rotary_emb_base", 10_000.0), dim)
    norm = NormSpec("rms", reader.number("layer_norm_epsilon", 1e-6))
    mixer = AttentionSpec(heads, heads, dim, rope=rope, qkv_bias=True)
    layers = uniform(LayerSpec(mixer, ffn, norm), layer_count(reader))
    return assembled(reader, "qwen", _DEFAULTS, layers, norm)


FAMILY = ConfiguredFamily(
    ("qwen",),
    _describe,
    _NAMES,
    renamed=(PREFIXED,),
    # of use beyond the trained length only, or choices of kernels
    harmless="use_dynamic_ntk|use_logn_attn|use_cache_\\w+|softmax_in_fp32|onnx_safe|emb_dropout_prob"
    "|attn_dropout_prob",
)
