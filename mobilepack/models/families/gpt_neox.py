"""GPT-NeoX: Pythia, Dolly v2. A quarter of each head is rotated; both sub-layers at once."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import assembled, equal_heads, plain_ffn
from mobilepack.models.families.names import At, by_group
from mobilepack.models.families.reading import Defaults, layer_count, layer_norm, uniform
from mobilepack.models.families.rope_config import RopeHabits, read_rope
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec

_DEFAULTS = Defaults(2048, bos_id=0, eos_id=2)
_BLOCK = "gpt_neox.layers.{i}."
_QKV = At(_BLOCK + "attention.query_key_value", by_group)

_NAMES: dict[str, str | At] = {
    "embed": "gpt_neox.embed_in",
    "norm": "gpt_neox.final_layer_norm",
    "head": "embed_out",
    "attn_norm": _BLOCK + "input_layernorm",
    "mlp_norm": _BLOCK + "post_attention_layernorm",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "o": _BLOCK + "attention.dense",
    "up": _BLOCK + "mlp.dense_h_to_4h",
    "down": _BLOCK + "mlp.dense_4h_to_h",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_gpt_neox.py)."""
    reader.alias(rope_theta="rotary_emb_base", partial_rotary_factor="rotary_pct")
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_eps")
    heads, head_dim = equal_heads(reader, hidden)
    positions = reader.integer("max_position_embeddings", _DEFAULTS.max_positions)
    rope = read_rope(reader, head_dim, positions, RopeHabits(partial=0.25))
    bias = reader.flag("attention_bias", True)
    parallel = reader.flag("use_parallel_residual", True)
    block = LayerSpec(
        AttentionSpec(heads, heads, head_dim, rope=rope, qkv_bias=bias, o_bias=bias),
        plain_ffn(reader, hidden, "hidden_act", "gelu"),
        norm,
        form="parallel_two" if parallel else "pre",
    )
    return assembled(reader, "gpt_neox", _DEFAULTS, uniform(block, layer_count(reader)), norm)


FAMILY = ConfiguredFamily(
    ("gpt_neox",),
    _describe,
    _NAMES,
    renamed=((("embed_out", "lm_head"),), (("gpt_neox.", ""),)),
)
