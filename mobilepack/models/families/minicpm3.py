"""MiniCPM3: latent attention, and MiniCPM's scales of embedding, residuals and logits."""

from __future__ import annotations

import math

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.llama_like import BARE, LLAMA_NAMES
from mobilepack.models.families.names import At, Names, Rows
from mobilepack.models.families.reading import (
    Defaults,
    bos_id,
    eos_ids,
    even,
    layer_count,
    read_activation,
    uniform,
    whole_share,
)
from mobilepack.models.families.rope_config import read_rope
from mobilepack.models.layer_spec import FeedForwardSpec, LayerSpec, NormSpec, RopeSpec
from mobilepack.models.mla_spec import LatentAttentionSpec
from mobilepack.models.spec import DecoderSpec

_ATTENTION = "model.layers.{i}.self_attn."
_LATENT_EPS = 1e-6  # of the latents' norms, whatever rms_norm_eps says (transformers 5.23)


def _spec(layer: LayerSpec) -> LatentAttentionSpec:
    assert isinstance(layer.mixer, LatentAttentionSpec)  # noqa: S101 (for the type checker)
    return layer.mixer


def _queries(name: str, layer: LayerSpec) -> Rows:
    """Return the rows of every head's plain channels, which come first, or of its rotated ones."""
    spec = _spec(layer)
    plain, turned = spec.plain_dim, spec.rope.dim
    size, start = (plain, 0) if name == "q_plain" else (turned, plain)
    return start, ((spec.n_heads, plain + turned), (size, 1))


def _latents(name: str, layer: LayerSpec) -> Rows:
    return (0 if name == "kv_a" else _spec(layer).kv_rank), ()


def _heads(name: str, layer: LayerSpec) -> Rows:
    """Return the rows of every head's keys, which come first, or of its values."""
    spec = _spec(layer)
    plain, values = spec.plain_dim, spec.value_dim
    size, start = (plain, 0) if name == "k_up" else (values, plain)
    return start, ((spec.n_heads, plain + values), (size, 1))


def _query_map(layer: LayerSpec) -> At:
    key = "q_proj" if _spec(layer).q_rank is None else "q_b_proj"
    return At(_ATTENTION + key, _queries)


_NAMES: Names = {
    **LLAMA_NAMES,
    "q_a": _ATTENTION + "q_a_proj",
    "q_a_norm": _ATTENTION + "q_a_layernorm",
    "q_plain": _query_map,
    "q_turned": _query_map,
    **{name: At(_ATTENTION + "kv_a_proj_with_mqa", _latents) for name in ("kv_a", "k_turned")},
    "kv_a_norm": _ATTENTION + "kv_a_layernorm",
    **{name: At(_ATTENTION + "kv_b_proj", _heads) for name in ("k_up", "v_up")},
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    defaults = Defaults(32_768, bos_id=1, eos_id=2, tied=True, eps=1e-5)
    hidden, count = reader.integer("hidden_size"), layer_count(reader)
    max_positions = reader.integer("max_position_embeddings", defaults.max_positions)
    norm = NormSpec("rms", reader.number("rms_norm_eps", defaults.eps))
    ffn = FeedForwardSpec(
        reader.integer("intermediate_size"),
        read_activation(reader, "hidden_act", defaults.activation),
        bias=reader.flag("mlp_bias", False),
    )
    mixer = _attention(reader, hidden, max_positions)
    depth = reader.number("scale_depth", 1.4 if not reader.names("scale_depth") else count**0.5)
    base = reader.number("dim_model_base", 256 if not reader.names("dim_model_base") else hidden)
    return DecoderSpec(
        family="minicpm3",
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden,
        layers=uniform(LayerSpec(mixer, ffn, norm), count),
        norm=norm,
        tied_head=reader.flag("tie_word_embeddings", defaults.tied),
        max_positions=max_positions,
        bos_id=bos_id(reader, defaults),
        eos_ids=eos_ids(reader, defaults),
        embed_scale=reader.number("scale_emb", 12.0),
        residual_scale=depth / math.sqrt(count),
        logit_scale=base / hidden,
    )


def _attention(reader: ConfigReader, hidden: int, max_positions: int) -> LatentAttentionSpec:
    heads = reader.integer("num_attention_heads")
    reader.fixed("num_key_value_heads", heads)
    plain = reader.integer("qk_nope_head_dim", 64)
    turned = even(reader, "qk_rope_head_dim", reader.integer("qk_rope_head_dim", 32))
    reader.fixed("head_dim", turned)
    reader.fixed("qk_head_dim", plain + turned)
    values = reader.integer("v_head_dim", max(hidden // heads, 1))
    whole_share(reader, hidden, heads)
    rope = read_rope(reader, turned, max_positions)
    no_rank = reader.names("q_lora_rank") and not reader.has("q_lora_rank")
    return LatentAttentionSpec(
        n_heads=heads,
        q_rank=None if no_rank else reader.integer("q_lora_rank", 768),
        kv_rank=reader.integer("kv_lora_rank", 256),
        plain_dim=plain,
        value_dim=values,
        rope=rope,
        scale=(plain + turned) ** -0.5 * _yarn_factor(rope),
        eps=_LATENT_EPS,
        bias=reader.flag("attention_bias", False),
    )


def _yarn_factor(rope: RopeSpec) -> float:
    """Return the square of YaRN's factor on queries and keys (transformers 5.23)."""
    numbers = dict(rope.parameters)
    weight, factor = numbers.get("mscale_all_dim", 0.0), numbers.get("factor", 1.0)
    return (0.1 * weight * math.log(factor) + 1.0) ** 2 if weight and factor > 1 else 1.0


FAMILY = ConfiguredFamily(("minicpm3",), _describe, _NAMES, renamed=(BARE,))
