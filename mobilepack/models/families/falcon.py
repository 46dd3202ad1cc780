"""Falcon: one key-value head or groups of them, parallel sub-layers, rotation or ALiBi."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import PREFIXED, assembled, equal_heads, plain_ffn
from mobilepack.models.families.names import At, by_group
from mobilepack.models.families.reading import Defaults, layer_count, layer_norm, uniform
from mobilepack.models.families.rope_config import read_rope
from mobilepack.models.layer_spec import AlibiSpec, AttentionSpec, Form, LayerSpec
from mobilepack.models.spec import DecoderSpec

_DEFAULTS = Defaults(2048, bos_id=11, eos_id=11, tied=True)
_BLOCK = "transformer.h.{i}."
_QKV = At(_BLOCK + "self_attention.query_key_value", by_group)


def _names(spec: DecoderSpec) -> dict[str, str | At]:
    two = spec.layers[0].form == "parallel_two"
    return {
        "embed": "transformer.word_embeddings",
        "norm": "transformer.ln_f",
        "head": "lm_head",
        "attn_norm": _BLOCK + ("ln_attn" if two else "input_layernorm"),
        "mlp_norm": _BLOCK + ("ln_mlp" if two else "post_attention_layernorm"),
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": _BLOCK + "self_attention.dense",
        "up": _BLOCK + "mlp.dense_h_to_4h",
        "down": _BLOCK + "mlp.dense_4h_to_h",
    }


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_falcon.py)."""
    reader.alias(
        hidden_size="n_embed",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        num_kv_heads="n_head_kv",
        intermediate_size="ffn_hidden_size",
    )
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_epsilon")
    heads, head_dim = equal_heads(reader, hidden)
    positions = reader.integer("max_position_embeddings", _DEFAULTS.max_positions)
    rope = read_rope(reader, head_dim, positions)
    alibi = reader.flag("alibi", False)
    bias = reader.flag("bias", False)
    mixer = AttentionSpec(
        heads,
        _kv_heads(reader, heads),
        head_dim,
        rope=None if alibi else rope,
        # `FalconAttention` divides the sum of scores and biases by the root of the channels.
        alibi=AlibiSpec(kind="falcon", scale=head_dim**-0.5) if alibi else None,
        qkv_bias=bias,
        o_bias=bias,
    )
    ffn = plain_ffn(reader, hidden, "activation", "gelu", bias=bias)
    layers = uniform(LayerSpec(mixer, ffn, norm, form=_form(reader)), layer_count(reader))
    return assembled(reader, "falcon", _DEFAULTS, layers, norm)


def _kv_heads(reader: ConfigReader, heads: int) -> int:
    grouped = reader.integer("num_kv_heads", heads)
    if reader.flag("new_decoder_architecture", False):
        reader.get("multi_query")
        return grouped
    return 1 if reader.flag("multi_query", True) else heads


def _form(reader: ConfigReader) -> Form:
    new = reader.flag("new_decoder_architecture", False)
    parallel = reader.flag("parallel_attn", True)
    norms = reader.integer("num_ln_in_parallel_attn", 2 if new else 1)
    if not parallel and new:
        reader.problem("parallel_attn", "must be true with new_decoder_architecture")
    if not parallel:
        return "pre"
    return "parallel_two" if new and norms == 2 else "parallel"


FAMILY = ConfiguredFamily(("falcon",), _describe, _names, renamed=(PREFIXED,))
