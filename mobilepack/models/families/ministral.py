"""Ministral: Mistral whose blocks choose between full and sliding attention."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, layer_types, window_size
from mobilepack.models.layer_spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    size = window_size(reader)
    usual = ["full_attention" if size is None else "sliding_attention"] * count
    kinds = layer_types(reader, count) or usual
    sliding = with_attention(block, window=size)
    return tuple(sliding if kind == "sliding_attention" else block for kind in kinds)


FAMILY = llama_like(
    "ministral", Defaults(131_072, n_kv_heads=8, bos_id=1, eos_id=2), Layout(_layers)
)
