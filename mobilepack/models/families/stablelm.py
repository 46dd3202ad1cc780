"""StableLM: Llama with layer norms, a quarter of each head rotated; 12B: parallel and qk-norm."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import (
    LLAMA_NAMES,
    Layout,
    llama_like,
    with_attention,
)
from mobilepack.models.families.names import At
from mobilepack.models.families.reading import Defaults, layer_norm, uniform
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec, NormSpec

_ATTENTION = "model.layers.{i}.self_attn."
_NAMES: dict[str, str | At] = LLAMA_NAMES | {
    "q_norm": At(_ATTENTION + "q_layernorm.norms.{head}"),
    "k_norm": At(_ATTENTION + "k_layernorm.norms.{head}"),
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(block, qkv_bias=reader.flag("use_qkv_bias", False))
    if reader.flag("qk_layernorm", False):
        norm = NormSpec("layer", block.norm.eps)
        block = with_attention(block, qk_norm=HeadNormSpec(norm, "heads"))
    parallel = reader.flag("use_parallel_residual", False)
    return uniform(replace(block, form="parallel" if parallel else "pre"), count)


FAMILY = llama_like(
    "stablelm",
    Defaults(4096, n_kv_heads=32, bos_id=0, eos_id=0, eps=1e-5),
    Layout(
        _layers,
        norm=lambda reader, eps: layer_norm(reader, "layer_norm_eps", eps),
        rope=RopeHabits(partial=0.25),
    ),
    names=_NAMES,
    harmless="rotary_scaling_factor|norm_eps|rope_pct",
)
