"""Gemma 3's text model: Gemma 2 with qk-norm, and rotations that differ by kind of block."""

from __future__ import annotations

import re
from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gemma import one_plus, scaled_embedding
from mobilepack.models.families.gemma2 import SANDWICH_NAMES, capped_block
from mobilepack.models.families.llama_like import BARE, Layout, read_llama, with_attention
from mobilepack.models.families.names import attention
from mobilepack.models.families.reading import (
    Defaults,
    layer_types,
    optional_number,
    window_size,
)
from mobilepack.models.families.rope_config import scaled_rope
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec, RopeSpec
from mobilepack.models.spec import DecoderSpec

_GLOBAL_THETA, _LOCAL_THETA = 1_000_000.0, 10_000.0
_PATTERN = 6  # every sixth block has full attention
_DEFAULTS = Defaults(
    131_072,
    n_kv_heads=4,
    head_dim=256,
    bos_id=2,
    eos_id=1,
    tied=True,
    activation="gelu_pytorch_tanh",
)


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = capped_block(reader, block, None)
    block = with_attention(block, qk_norm=HeadNormSpec(block.norm))
    ropes = _ropes(reader, attention(block).head_dim)
    full = with_attention(block, rope=ropes["full_attention"])
    sliding = with_attention(block, rope=ropes["sliding_attention"], window=window_size(reader))
    every = reader.integer("sliding_window_pattern", reader.integer("_sliding_window_pattern", 6))
    pattern = ["sliding_attention" if i % every else "full_attention" for i in range(1, count + 1)]
    kinds = layer_types(reader, count) or pattern
    return tuple(sliding if kind == "sliding_attention" else full for kind in kinds)


def _ropes(reader: ConfigReader, head_dim: int) -> dict[str, RopeSpec]:
    """Read both rotations: nested `rope_parameters`, or `rope_theta` and the local one beside."""
    positions = reader.integer("max_position_embeddings", _DEFAULTS.max_positions)
    nested = reader.child("rope_parameters")
    thetas = {
        "full_attention": reader.number("rope_theta", _GLOBAL_THETA),
        "sliding_attention": reader.number("rope_local_base_freq", _LOCAL_THETA),
    }
    ropes: dict[str, RopeSpec] = {}
    for kind, theta in thetas.items():
        own = nested.child(kind) if nested is not None else None
        if kind == "full_attention" and reader.has("rope_scaling"):
            own = reader.child("rope_scaling")
        sizes = (theta, head_dim, positions)
        ropes[kind] = RopeSpec("default", theta, head_dim)
        if own is not None:
            ropes[kind] = scaled_rope(reader, own, sizes)
    return ropes


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    cap = optional_number(reader, "final_logit_softcapping")
    return replace(scaled_embedding(reader, spec), logit_softcap=cap)


_LAYOUT = Layout(
    _layers, norm=one_plus, activation_key="hidden_activation", rope=None, finish=_finish
)


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a text config, or the text half of a config with a vision tower."""
    text = reader.child("text_config") if reader.get("model_type") == "gemma3" else None
    if text is None:
        return read_llama(reader, "gemma3", _DEFAULTS, _LAYOUT)
    text.get("model_type")
    spec = read_llama(text, "gemma3", _DEFAULTS, _LAYOUT)
    tied = reader.flag("tie_word_embeddings", spec.tied_head)
    eos = reader.token_ids("eos_token_id") or spec.eos_ids
    return replace(spec, tied_head=tied, eos_ids=eos)


FAMILY = ConfiguredFamily(
    ("gemma3_text", "gemma3"),
    _describe,
    SANDWICH_NAMES,
    renamed=(
        BARE,
        (("model.", "language_model.model."), ("lm_head", "language_model.lm_head")),
        (("model.", "model.language_model."),),
    ),
    ignored=re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*"),
    harmless=r"vision_config|\w+_token_index|\w+_token_id|mm_tokens_per_image|bos_token_id",
)
