"""Qwen 1.5, 2 and 2.5: Llama with a bias on queries, keys and values."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, llama_like, windowed, with_attention
from mobilepack.models.families.reading import Defaults
from mobilepack.models.layer_spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    return windowed(reader, with_attention(block, qkv_bias=True), count)


FAMILY = llama_like("qwen2", Defaults(32_768, n_kv_heads=32), Layout(_layers))
