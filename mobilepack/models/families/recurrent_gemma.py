"""RecurrentGemma: real-gated linear recurrent units, and local attention in every third block."""

from __future__ import annotations

import math

from mobilepack.models.config import ConfigReader, show
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.convolutions import one_channel
from mobilepack.models.families.names import At, Names
from mobilepack.models.families.reading import (
    Defaults,
    bos_id,
    eos_ids,
    layer_count,
    read_activation,
    read_heads,
)
from mobilepack.models.families.rope_config import RopeHabits, read_rope
from mobilepack.models.layer_spec import AttentionSpec, FeedForwardSpec, LayerSpec, NormSpec
from mobilepack.models.recurrent_spec import ConvSpec, RgLruSpec
from mobilepack.models.spec import DecoderSpec

_LAYER = "model.layers.{i}."
_BLOCK = _LAYER + "temporal_block."
_KINDS = ("recurrent", "attention")
_POSITIONS = 8192
"""The length it was trained with (arXiv 2404.07839, section 2); its configs name none."""


def _stored(name: str, layer: LayerSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    del name
    assert isinstance(layer.mixer, RgLruSpec)  # noqa: S101 (for the type checker)
    heads = layer.mixer.heads
    return (heads, shape[0] // heads, *shape[1:])


def _out(layer: LayerSpec) -> str:
    return _BLOCK + ("linear_out" if isinstance(layer.mixer, RgLruSpec) else "o_proj")


_NAMES: Names = {
    "embed": "model.embed_tokens",
    "norm": "model.final_norm",
    "head": "lm_head",
    "attn_norm": _LAYER + "temporal_pre_norm",
    "mlp_norm": _LAYER + "channel_pre_norm",
    **{name: f"{_BLOCK}{name}_proj" for name in "qkv"},
    "o": _out,
    "in_x": _BLOCK + "linear_x",
    "in_y": _BLOCK + "linear_y",
    "conv": At(_BLOCK + "conv_1d", stored=one_channel),
    **{
        name: At(f"{_BLOCK}rg_lru.{name}_{{kind}}", bare=True, stored=_stored)
        for name in ("input_gate", "recurrent_gate")
    },
    "recurrent_param": At(_BLOCK + "rg_lru.recurrent_param", bare=True),
    **{name: f"{_LAYER}mlp_block.{name}_proj" for name in ("gate", "up", "down")},
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    defaults = Defaults(_POSITIONS, bos_id=2, eos_id=1, tied=True, eps=1e-6)
    hidden = reader.integer("hidden_size")
    norm = NormSpec("rms", reader.number("rms_norm_eps", defaults.eps), offset=1.0)
    reader.fixed("embeddings_scale_by_sqrt_dim", True)
    count = layer_count(reader)
    blocks = _blocks(reader, hidden, norm)
    return DecoderSpec(
        family="recurrent_gemma",
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden,
        layers=tuple(blocks[kind] for kind in _kinds(reader, count)),
        norm=norm,
        tied_head=reader.flag("tie_word_embeddings", defaults.tied),
        max_positions=reader.integer("max_position_embeddings", _POSITIONS),
        bos_id=bos_id(reader, defaults),
        eos_ids=eos_ids(reader, defaults),
        embed_scale=_bfloat16(hidden**0.5),
        logit_softcap=reader.number("logits_soft_cap", 30.0),
    )


def _blocks(reader: ConfigReader, hidden: int, norm: NormSpec) -> dict[str, LayerSpec]:
    """Return a block of either kind."""
    heads = read_heads(reader, Defaults(_POSITIONS), hidden)
    activation = read_activation(reader, "hidden_activation", "gelu_pytorch_tanh")
    ffn = FeedForwardSpec(reader.integer("intermediate_size") // 2, activation, bias=True)
    attention = AttentionSpec(
        heads.count,
        heads.kv_count,
        heads.dim,
        window=reader.integer("attention_window_size", 2048),
        rope=read_rope(reader, heads.dim, _POSITIONS, RopeHabits(partial=0.5)),
        qkv_bias=reader.flag("attention_bias", False),
        o_bias=True,
    )
    width = reader.integer("lru_width", hidden)
    if width % heads.count:
        reader.problem(
            "lru_width", f"is {width}, no multiple of num_attention_heads ({heads.count})"
        )
    conv = ConvSpec(reader.integer("conv1d_width", 4, minimum=2), bias=True)
    unit = RgLruSpec(width, heads.count, conv, activation)
    mixers: dict[str, AttentionSpec | RgLruSpec] = {"attention": attention, "recurrent": unit}
    return {kind: LayerSpec(mixer, ffn, norm) for kind, mixer in mixers.items()}


def _kinds(reader: ConfigReader, count: int) -> list[str]:
    """Read the pattern of blocks, which is repeated."""
    pattern = reader.get("block_types") or ["recurrent", "recurrent", "attention"]
    if not isinstance(pattern, list) or not all(kind in _KINDS for kind in pattern):
        reader.problem("block_types", f"is {show(pattern)}; a list of {' and '.join(_KINDS)}")
        pattern = ["recurrent"]
    return [str(pattern[index % len(pattern)]) for index in range(count)]


def _bfloat16(value: float) -> float:
    """Round to 8 significant bits: transformers 5.23 keeps the embedding's factor in bfloat16."""
    exponent = math.frexp(value)[1] - 8
    return math.ldexp(round(math.ldexp(value, -exponent)), exponent)


FAMILY = ConfiguredFamily(
    ("recurrent_gemma",),
    _describe,
    _NAMES,
    harmless="final_w_init_variance_scale|w_init_variance_scale|num_hidden_layers|_block_types",
)
