"""Qwen 1.5, 2 and 2.5: Llama with a bias on queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import Defaults, LlamaLike, windowed
from mobilepack.models.spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    return windowed(reader, replace(block, qkv_bias=True), count)


FAMILY = LlamaLike(("qwen2",), Defaults(max_positions=32_768, n_kv_heads=32), _layers)
