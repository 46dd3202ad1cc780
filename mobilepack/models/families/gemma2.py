"""Gemma 2: norms on both sides of each sub-layer, soft caps, every other block with a window."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.gemma import one_plus, scaled_embedding
from mobilepack.models.families.llama_like import (
    LLAMA_NAMES,
    Layout,
    biased,
    llama_like,
    with_attention,
)
from mobilepack.models.families.reading import (
    Defaults,
    layer_types,
    optional_number,
    window_size,
)
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec

SANDWICH_NAMES = LLAMA_NAMES | {
    "attn_post_norm": "model.layers.{i}.post_attention_layernorm",
    "mlp_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "mlp_post_norm": "model.layers.{i}.post_feedforward_layernorm",
}


def capped_block(reader: ConfigReader, block: LayerSpec, cap: float | None) -> LayerSpec:
    """Return a block as Gemma 2 and 3 write it, with full attention."""
    block = replace(biased(reader, block), form="sandwich")
    return with_attention(
        block,
        scale=reader.number("query_pre_attn_scalar", 256) ** -0.5,
        softcap=optional_number(reader, "attn_logit_softcapping", cap),
    )


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    full = capped_block(reader, block, 50.0)
    sliding = with_attention(full, window=window_size(reader))
    pattern = ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    kinds = layer_types(reader, count) or pattern
    return tuple(sliding if kind == "sliding_attention" else full for kind in kinds)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    cap = optional_number(reader, "final_logit_softcapping", 30.0)
    return replace(scaled_embedding(reader, spec), logit_softcap=cap)


FAMILY = llama_like(
    "gemma2",
    Defaults(
        8192,
        n_kv_heads=4,
        head_dim=256,
        bos_id=2,
        eos_id=1,
        tied=True,
        activation="gelu_pytorch_tanh",
    ),
    Layout(_layers, norm=one_plus, activation_key="hidden_activation", finish=_finish),
    names=SANDWICH_NAMES,
    harmless="sliding_window_size|hidden_act",
)
