"""Mixtral: Mistral with experts instead of the feed-forward."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.experts import MIXTRAL_NAMES, read_experts
from mobilepack.models.families.llama_like import Layout, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, uniform, window_size
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(block, window=window_size(reader, None))
    reader.number("router_jitter_noise", 0.0, above=-1.0)  # noise in training only
    moe = read_experts(reader, block, "num_local_experts", (8, 2))
    return uniform(replace(block, ffn=replace(moe, weighting="softmax_chosen")), count)


FAMILY = llama_like(
    "mixtral",
    Defaults(131_072, n_kv_heads=8, bos_id=1, eos_id=2, eps=1e-5),
    Layout(_layers, rope=RopeHabits(theta=1e6)),
    names=MIXTRAL_NAMES,
)
