"""MPT: ALiBi, no biases anywhere, queries, keys and values in one matrix."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import PREFIXED, assembled, equal_heads
from mobilepack.models.families.names import At, stacked
from mobilepack.models.families.reading import Defaults, layer_count, optional_number, uniform
from mobilepack.models.layer_spec import (
    AlibiSpec,
    AttentionSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
)
from mobilepack.models.spec import DecoderSpec

_DEFAULTS = Defaults(2048, tied=True)
_BLOCK = "transformer.blocks.{i}."
_QKV = At(_BLOCK + "attn.Wqkv", stacked)

_NAMES: dict[str, str | At] = {
    "embed": "transformer.wte",
    "norm": "transformer.norm_f",
    "head": "lm_head",
    "attn_norm": _BLOCK + "norm_1",
    "mlp_norm": _BLOCK + "norm_2",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "o": _BLOCK + "attn.out_proj",
    "up": _BLOCK + "ffn.up_proj",
    "down": _BLOCK + "ffn.down_proj",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_mpt.py)."""
    reader.alias(
        hidden_size="d_model",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        max_position_embeddings="max_seq_len",
    )
    reader.fixed("no_bias", True)
    reader.fixed("logit_scale", None)
    reader.fixed("expansion_ratio", 4)  # transformers' MptMLP is always four times as wide
    hidden = reader.integer("hidden_size")
    norm = NormSpec("layer", reader.number("layer_norm_epsilon", 1e-5))
    mixer = _attention(reader, *equal_heads(reader, hidden))
    ffn = FeedForwardSpec(4 * hidden, "gelu", gated=False)
    layers = uniform(LayerSpec(mixer, ffn, norm), layer_count(reader))
    return assembled(reader, "mpt", _DEFAULTS, layers, norm)


def _attention(reader: ConfigReader, heads: int, head_dim: int) -> AttentionSpec:
    inner = reader.child("attn_config")
    if inner is None:
        return AttentionSpec(heads, heads, head_dim, alibi=AlibiSpec(kind="mpt"))
    inner.fixed("attn_type", "multihead_attention")
    inner.fixed("alibi", True)
    inner.fixed("qk_ln", False)
    inner.fixed("prefix_lm", False)
    inner.fixed("attn_uses_sequence_id", False)
    bias_max = inner.number("alibi_bias_max", 8)
    return AttentionSpec(
        heads,
        heads,
        head_dim,
        alibi=AlibiSpec(bias_max, "mpt"),
        scale=optional_number(inner, "softmax_scale"),
        clip=optional_number(inner, "clip_qkv"),
    )


FAMILY = ConfiguredFamily(
    ("mpt",),
    _describe,
    _NAMES,
    renamed=(PREFIXED,),
    # the biases of ALiBi take the place of learned positions
    harmless="attn_impl|learned_pos_emb|norm_type|verbose|resid_pdrop|emb_pdrop",
)
