"""OLMoE: Llama with a norm over all queries and all keys, and experts."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.experts import QWEN_MOE_NAMES, normalised, read_experts
from mobilepack.models.families.llama_like import Layout, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, optional_number, uniform
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    block = with_attention(
        block,
        qk_norm=HeadNormSpec(block.norm, "all"),
        qkv_bias=bias,
        o_bias=bias,
        clip=optional_number(reader, "clip_qkv"),
    )
    moe = replace(read_experts(reader, block, "num_experts", (64, 8)), weighting=normalised(reader))
    return uniform(replace(block, ffn=moe), count)


FAMILY = llama_like(
    "olmoe", Defaults(4096, eos_id=50_279, eps=1e-5), Layout(_layers), names=QWEN_MOE_NAMES
)
