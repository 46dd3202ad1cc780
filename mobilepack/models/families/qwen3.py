"""Qwen 3: Llama with a norm on every head's queries and keys."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import Defaults, LlamaLike, windowed
from mobilepack.models.spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    return windowed(reader, replace(block, qk_norm=True, qkv_bias=bias, o_bias=bias), count)


FAMILY = LlamaLike(("qwen3",), Defaults(max_positions=32_768, n_kv_heads=32, head_dim=128), _layers)
