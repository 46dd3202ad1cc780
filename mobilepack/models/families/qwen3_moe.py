"""Qwen 3 MoE: Qwen 3's attention, and experts of which each token chooses a few."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.experts import (
    QWEN_MOE_NAMES,
    normalised,
    read_experts,
    with_experts,
)
from mobilepack.models.families.llama_like import Layout, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, uniform, window_size
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    window = window_size(reader)
    block = with_attention(
        block,
        qk_norm=HeadNormSpec(block.norm),
        qkv_bias=bias,
        o_bias=bias,
        window=window if reader.flag("use_sliding_window", False) else None,
    )
    reader.get("max_window_layers")  # in published configs; every block is windowed, or none
    moe = replace(
        read_experts(reader, block, "num_experts", (128, 8)),
        size=reader.integer("moe_intermediate_size", 768),
        weighting=normalised(reader),
    )
    return with_experts(reader, uniform(block, count), moe)


FAMILY = llama_like(
    "qwen3_moe", Defaults(32_768, n_kv_heads=4), Layout(_layers), names=QWEN_MOE_NAMES
)
