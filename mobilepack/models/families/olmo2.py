"""OLMo 2: norms after the sub-layers, and over all queries and all keys at once."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import (
    LLAMA_NAMES,
    Layout,
    biased,
    llama_like,
    with_attention,
)
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec

_NAMES = LLAMA_NAMES | {
    "attn_norm": "model.layers.{i}.post_attention_layernorm",
    "mlp_norm": "model.layers.{i}.post_feedforward_layernorm",
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(biased(reader, block), qk_norm=HeadNormSpec(block.norm, "all"))
    return uniform(replace(block, form="branch"), count)


FAMILY = llama_like("olmo2", Defaults(2048, eos_id=50279, eps=1e-5), Layout(_layers), names=_NAMES)
