"""Bloom and Bloomz: linear biases on the scores instead of positions (ALiBi)."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import PREFIXED, assembled, equal_heads, gpt2_keys
from mobilepack.models.families.names import At, by_group
from mobilepack.models.families.reading import Defaults, layer_count, layer_norm, uniform
from mobilepack.models.layer_spec import AlibiSpec, AttentionSpec, FeedForwardSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec

_DEFAULTS = Defaults(2048, bos_id=1, eos_id=2, tied=True)
_BLOCK = "transformer.h.{i}."
_QKV = At(_BLOCK + "self_attention.query_key_value", by_group)

_NAMES: dict[str, str | At] = {
    "embed": "transformer.word_embeddings",
    "embed_norm": "transformer.word_embeddings_layernorm",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attn_norm": _BLOCK + "input_layernorm",
    "mlp_norm": _BLOCK + "post_attention_layernorm",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "o": _BLOCK + "self_attention.dense",
    "up": _BLOCK + "mlp.dense_h_to_4h",
    "down": _BLOCK + "mlp.dense_4h_to_h",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_bloom.py)."""
    gpt2_keys(reader)
    reader.fixed("apply_residual_connection_post_layernorm", False)
    reader.fixed("intermediate_size", 4 * reader.integer("hidden_size"))
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_epsilon")
    heads, head_dim = equal_heads(reader, hidden)
    mixer = AttentionSpec(heads, heads, head_dim, alibi=AlibiSpec(), qkv_bias=True, o_bias=True)
    ffn = FeedForwardSpec(4 * hidden, "gelu_tanh", gated=False, bias=True)
    layers = uniform(LayerSpec(mixer, ffn, norm), layer_count(reader))
    return replace(assembled(reader, "bloom", _DEFAULTS, layers, norm), embed_norm=norm)


FAMILY = ConfiguredFamily(
    ("bloom",),
    _describe,
    _NAMES,
    renamed=(PREFIXED,),
    harmless="attention_softmax_in_fp32|bias_dropout_fusion|masked_softmax_fusion|offset_alibi|"
    "skip_bias_add|skip_bias_add_qkv|slow_but_exact",
)
