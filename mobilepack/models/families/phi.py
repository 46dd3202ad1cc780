"""Phi-1, 1.5 and 2: both sub-layers read one norm, a part of each head is rotated."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import (
    BARE,
    LLAMA_NAMES,
    Layout,
    llama_like,
    with_attention,
    with_ffn,
)
from mobilepack.models.families.reading import Defaults, layer_norm, uniform
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import HeadNormSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec

_BLOCK = "model.layers.{i}."
_NAMES = LLAMA_NAMES | {
    "norm": "model.final_layernorm",
    "o": _BLOCK + "self_attn.dense",
    "q_norm": _BLOCK + "self_attn.q_layernorm",
    "k_norm": _BLOCK + "self_attn.k_layernorm",
    "up": _BLOCK + "mlp.fc1",
    "down": _BLOCK + "mlp.fc2",
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(block, qkv_bias=True, o_bias=True)
    if reader.flag("qk_layernorm", False):
        block = with_attention(block, qk_norm=HeadNormSpec(block.norm))
    block = replace(with_ffn(block, gated=False, bias=True), form="parallel")
    return uniform(block, count)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(spec, head_bias=True)


FAMILY = llama_like(
    "phi",
    Defaults(2048, bos_id=1, eos_id=2, eps=1e-5, activation="gelu_new"),
    Layout(
        _layers,
        norm=lambda reader, eps: layer_norm(reader, "layer_norm_eps", eps),
        rope=RopeHabits(partial=0.5),
        finish=_finish,
    ),
    names=_NAMES,
    renamed=(BARE,),
)
