"""Qwen 3: Llama with a norm on every head's queries and keys."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, llama_like, windowed, with_attention
from mobilepack.models.families.reading import Defaults
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    norm = HeadNormSpec(block.norm)
    return windowed(reader, with_attention(block, qk_norm=norm, qkv_bias=bias, o_bias=bias), count)


FAMILY = llama_like("qwen3", Defaults(32_768, n_kv_heads=32, head_dim=128), Layout(_layers))
