"""Qwen 1.5 and 2 MoE: Qwen 2's attention, chosen experts, and one that every token uses."""

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
from mobilepack.models.families.reading import Defaults, layer_types, window_size
from mobilepack.models.layer_spec import FeedForwardSpec, LayerSpec

_SHARED = "model.layers.{i}.mlp.shared_expert"
_NAMES = {
    **QWEN_MOE_NAMES,
    "shared_router": _SHARED + "_gate",
    **{f"shared_{name}": f"{_SHARED}.{name}_proj" for name in ("gate", "up", "down")},
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(block, qkv_bias=reader.flag("qkv_bias", True))
    moe = read_experts(reader, block, "num_experts", (60, 4))
    shared = reader.integer("shared_expert_intermediate_size", 5632)
    moe = replace(
        moe,
        size=reader.integer("moe_intermediate_size", 1408),
        weighting=normalised(reader),
        shared=FeedForwardSpec(shared, moe.activation),
    )
    return with_experts(reader, _windowed(reader, block, count), moe)


def _windowed(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    """Return blocks whose attention slides where the config says so.

    transformers 5.23 configuration_qwen2_moe.py: without `layer_types`, every other block of the
    first `max_window_layers`, counted from 0, if `use_sliding_window`.
    """
    use = reader.flag("use_sliding_window", False)
    size = window_size(reader) if use else None
    reader.get("sliding_window")  # transformers 5 writes 0 where it is not in use
    first = reader.integer("max_window_layers", 28, minimum=0)
    default = [
        "sliding_attention" if use and i % 2 == 0 and i < first else "full_attention"
        for i in range(count)
    ]
    kinds = layer_types(reader, count) or default
    if "sliding_attention" in kinds and not (use and size):
        reader.problem("layer_types", "has sliding_attention, but sliding_window is not in use")
    sliding = with_attention(block, window=size)
    return tuple(sliding if kind == "sliding_attention" else block for kind in kinds)


FAMILY = llama_like("qwen2_moe", Defaults(32_768, n_kv_heads=16), Layout(_layers), names=_NAMES)
