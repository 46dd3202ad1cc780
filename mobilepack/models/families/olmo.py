"""OLMo: Llama with layer norms that have no vectors, and clamped queries, keys and values."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, optional_number, uniform
from mobilepack.models.layer_spec import LayerSpec, NormSpec

_NORM = NormSpec("layer", 1e-5, weight=False)  # transformers 5.23 modeling_olmo.py, OlmoLayerNorm


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(block, clip=optional_number(reader, "clip_qkv"))
    return uniform(biased(reader, block), count)


FAMILY = llama_like(
    "olmo",
    Defaults(2048, eos_id=50279),
    Layout(_layers, norm=lambda reader, eps: _NORM),
)
