"""LFM2: blocks of a short gated convolution, and some of Llama's attention between them."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader, show
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.convolutions import one_channel
from mobilepack.models.families.llama_like import Layout, read_llama, with_attention
from mobilepack.models.families.names import At, Names, Rows
from mobilepack.models.families.reading import Defaults
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import FeedForwardSpec, HeadNormSpec, LayerSpec, NormSpec
from mobilepack.models.recurrent_spec import ConvSpec, ShortConvSpec
from mobilepack.models.spec import DecoderSpec

_LAYER = "model.layers.{i}."
_KINDS = ("conv", "full_attention")


def _rows(name: str, layer: LayerSpec) -> Rows:
    assert isinstance(layer.mixer, ShortConvSpec)  # noqa: S101 (for the type checker)
    return ("in_b", "in_c", "in_x").index(name) * layer.mixer.width, ()


def _out(layer: LayerSpec) -> str:
    inner = "conv" if isinstance(layer.mixer, ShortConvSpec) else "self_attn"
    return f"{_LAYER}{inner}.out_proj"


_NAMES: Names = {
    "embed": "model.embed_tokens",
    "norm": "model.embedding_norm",
    "head": "lm_head",
    "attn_norm": _LAYER + "operator_norm",
    "mlp_norm": _LAYER + "ffn_norm",
    **{name: f"{_LAYER}self_attn.{name}_proj" for name in "qkv"},
    "q_norm": _LAYER + "self_attn.q_layernorm",
    "k_norm": _LAYER + "self_attn.k_layernorm",
    **{name: At(_LAYER + "conv.in_proj", _rows) for name in ("in_b", "in_c", "in_x")},
    "conv": At(_LAYER + "conv.conv", stored=one_channel),
    "o": _out,
    **{
        name: f"{_LAYER}feed_forward.{key}"
        for name, key in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
    },
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    hidden = reader.integer("hidden_size")
    attention = with_attention(_sized(reader, block), qk_norm=HeadNormSpec(block.norm))
    taps, bias = reader.integer("conv_L_cache", 3, minimum=2), reader.flag("conv_bias", False)
    mixer = ShortConvSpec(hidden, ConvSpec(taps, bias), bias)
    conv = replace(attention, mixer=mixer)
    return tuple(attention if kind != "conv" else conv for kind in _kinds(reader, count))


def _kinds(reader: ConfigReader, count: int) -> list[str]:
    """Read each block's kind; without `layer_types`, attentions are those of `full_attn_idxs`."""
    kinds, indices = reader.get("layer_types"), reader.get("full_attn_idxs")
    if kinds is None:
        chosen = range(count) if indices is None else indices
        if not isinstance(chosen, (list, range)):
            reader.problem("full_attn_idxs", f"is {show(indices)}; a list of blocks is needed")
            chosen = []
        return ["full_attention" if i in chosen else "conv" for i in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not set(kinds) <= set(_KINDS):
        reader.problem("layer_types", f"must be {count} times one of {' and '.join(_KINDS)}")
        return ["conv"] * count
    return [str(kind) for kind in kinds]


def _sized(reader: ConfigReader, block: LayerSpec) -> LayerSpec:
    """Return a block with the size of its feed-forward as transformers 5.23 `Lfm2MLP` finds it."""
    assert isinstance(block.ffn, FeedForwardSpec)  # noqa: S101 (for the type checker)
    size = reader.integer("block_ff_dim", block.ffn.size)
    multiple = reader.integer("block_multiple_of", 256)
    factor = reader.number("block_ffn_dim_multiplier", 1.0)
    if reader.flag("block_auto_adjust_ff_dim", True):
        size = int(factor * int(2 * size / 3))
        size = -(-size // multiple) * multiple
    return replace(block, ffn=replace(block.ffn, size=size))


_DEFAULTS = Defaults(128_000, n_kv_heads=8, bos_id=1, eos_id=2, tied=True)
_LAYOUT = Layout(
    _layers,
    norm=lambda reader, _: NormSpec("rms", reader.number("norm_eps", 1e-5)),
    rope=RopeHabits(theta=1e6),
)


def _describe(reader: ConfigReader) -> DecoderSpec:
    reader.alias(intermediate_size="block_ff_dim", tie_word_embeddings="tie_embedding")
    hidden = reader.integer("hidden_size")
    for key in ("block_dim", "conv_dim", "conv_dim_out"):
        reader.fixed(key, hidden)
    reader.fixed("num_heads", reader.integer("num_attention_heads"))
    reader.fixed("block_norm_eps", reader.number("norm_eps", 1e-5))
    for key in ("block_use_swiglu", "use_pos_enc"):
        reader.fixed(key, True)
    return read_llama(reader, "lfm2", _DEFAULTS, _LAYOUT)


FAMILY = ConfiguredFamily(
    ("lfm2",), _describe, _NAMES, harmless=r"\w+_init_scale|\w+_use_xavier_init|theta"
)
