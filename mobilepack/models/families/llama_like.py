"""Families that are laid out like Llama: their own defaults, blocks and a few more keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.reading import (
    Defaults,
    bos_id,
    eos_ids,
    layer_count,
    layer_types,
    read_activation,
    read_heads,
    window_size,
)
from mobilepack.models.families.rope_config import HALVES, RopeHabits, read_rope
from mobilepack.models.layer_spec import AttentionSpec, FeedForwardSpec, LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec

# The decoder's names and Llama's; transformers 5.23 models/llama/modeling_llama.py.
LLAMA_NAMES = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attn_norm": "model.layers.{i}.input_layernorm",
    "mlp_norm": "model.layers.{i}.post_attention_layernorm",
    "q_norm": "model.layers.{i}.self_attn.q_norm",
    "k_norm": "model.layers.{i}.self_attn.k_norm",
    **{name: f"model.layers.{{i}}.self_attn.{name}_proj" for name in "qkvo"},
    **{name: f"model.layers.{{i}}.mlp.{name}_proj" for name in ("gate", "up", "down")},
}

BARE = (("model.", ""),)
"""A file saved from the bare model has no such prefix."""

LayersOf = Callable[[ConfigReader, LayerSpec, int], tuple[LayerSpec, ...]]
Finish = Callable[[ConfigReader, DecoderSpec], DecoderSpec]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a family that is laid out like Llama does in its own way.

    Attributes:
        layers: Given the reader, a plain block and the number of blocks, returns the blocks.
        norm: Given the reader and the default eps, returns the norm of blocks and head.
        activation_key: Key of the activation's name.
        rope: How it rotates; None: `layers` reads that.
        finish: Changes the finished decoder, for keys of its own.
    """

    layers: LayersOf
    norm: Callable[[ConfigReader, float], NormSpec] = lambda reader, eps: NormSpec(
        "rms", reader.number("rms_norm_eps", eps)
    )
    activation_key: str = "hidden_act"
    rope: RopeHabits | None = HALVES
    finish: Finish = lambda reader, spec: spec


def llama_like(
    model_type: str, defaults: Defaults, layout: Layout, **more: object
) -> ConfiguredFamily:
    """Return a family with Llama's config keys and tensor names.

    Args:
        model_type: Its name.
        defaults: Where the config is silent.
        layout: What it does in its own way.
        **more: Fields of `ConfiguredFamily`, for example other `names`.
    """

    def describe(reader: ConfigReader) -> DecoderSpec:
        return read_llama(reader, model_type, defaults, layout)

    given = {"names": LLAMA_NAMES, "renamed": (BARE,), **more}
    return ConfiguredFamily((model_type,), describe, **given)  # type: ignore[arg-type]


def read_llama(
    reader: ConfigReader, family: str, defaults: Defaults, layout: Layout
) -> DecoderSpec:
    """Read a config with Llama's keys."""
    hidden = reader.integer("hidden_size")
    heads = read_heads(reader, defaults, hidden)
    max_positions = reader.integer("max_position_embeddings", defaults.max_positions)
    activation = read_activation(reader, layout.activation_key, defaults.activation)
    norm = layout.norm(reader, defaults.eps)
    habits = layout.rope
    rope = read_rope(reader, heads.dim, max_positions, habits) if habits is not None else None
    block = LayerSpec(
        AttentionSpec(heads.count, heads.kv_count, heads.dim, rope=rope),
        FeedForwardSpec(reader.integer("intermediate_size"), activation),
        norm,
    )
    spec = DecoderSpec(
        family=family,
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden,
        layers=layout.layers(reader, block, layer_count(reader)),
        norm=norm,
        tied_head=reader.flag("tie_word_embeddings", defaults.tied),
        max_positions=max_positions,
        bos_id=bos_id(reader, defaults),
        eos_ids=eos_ids(reader, defaults),
    )
    return layout.finish(reader, spec)


def with_attention(block: LayerSpec, **changes: object) -> LayerSpec:
    """Return a block whose attention has other fields."""
    return replace(block, mixer=replace(block.mixer, **changes))  # type: ignore[arg-type]


def with_ffn(block: LayerSpec, **changes: object) -> LayerSpec:
    """Return a block whose feed-forward has other fields."""
    assert isinstance(block.ffn, FeedForwardSpec)  # noqa: S101 (for the type checker)
    return replace(block, ffn=replace(block.ffn, **changes))  # type: ignore[arg-type]


def biased(reader: ConfigReader, block: LayerSpec) -> LayerSpec:
    """Return a block with the biases that `attention_bias` and `mlp_bias` say."""
    bias = reader.flag("attention_bias", False)
    block = with_attention(block, qkv_bias=bias, o_bias=bias)
    return with_ffn(block, bias=reader.flag("mlp_bias", False))


def windowed(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    """Return blocks as Qwen2 and Qwen3 mix full and sliding attention.

    transformers 5.23 configuration_qwen2.py: `sliding_window` counts only if `use_sliding_window`;
    `layer_types` decides block by block, and where it is absent the blocks from
    `max_window_layers` on slide.
    """
    use = reader.flag("use_sliding_window", False)
    size = window_size(reader)
    size = size if use else None
    first = reader.integer("max_window_layers", 28, minimum=0)
    default = ["full_attention"] * count
    if size is not None:
        default = ["sliding_attention" if i >= first else "full_attention" for i in range(count)]
    kinds = layer_types(reader, count) or default
    if "sliding_attention" in kinds and size is None:
        reader.problem("layer_types", "has sliding_attention, but sliding_window is not in use")
    sliding = with_attention(block, window=size)
    return tuple(sliding if kind == "sliding_attention" else block for kind in kinds)
