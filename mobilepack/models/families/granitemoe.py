"""Granite 3 MoE: Granite's multipliers, and experts whose maps are one tensor for all of them."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.experts import read_experts
from mobilepack.models.families.llama_like import LLAMA_NAMES, Layout, llama_like, with_attention
from mobilepack.models.families.names import At, Rows
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.models.spec import DecoderSpec

_EXPERTS = "model.layers.{i}.block_sparse_moe."


def _rows(name: str, layer: LayerSpec) -> Rows:
    """Return an expert's gate or up: the first or second half of its part of the tensor."""
    moe = _moe(layer)
    first = 0 if name == "experts_gate" else moe.size
    return first, ((moe.experts, 2 * moe.size), (moe.size, 1))


def _stored(name: str, layer: LayerSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    moe = _moe(layer)
    if name == "experts_down":
        return moe.experts, shape[0] // moe.experts, shape[1]
    return moe.experts, 2 * moe.size, shape[1]


def _moe(layer: LayerSpec) -> MoeSpec:
    assert isinstance(layer.ffn, MoeSpec)  # noqa: S101 (for the type checker)
    return layer.ffn


_NAMES = {
    **LLAMA_NAMES,
    "router": _EXPERTS + "router.layer",
    "experts_gate": At(_EXPERTS + "input_linear", _rows, stored=_stored),
    "experts_up": At(_EXPERTS + "input_linear", _rows, stored=_stored),
    "experts_down": At(_EXPERTS + "output_linear", stored=_stored),
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    scale = reader.number("attention_multiplier", 1.0)
    block = with_attention(block, qkv_bias=bias, o_bias=bias, scale=scale)
    moe = read_experts(reader, block, "num_local_experts", (8, 2))
    return uniform(replace(block, ffn=replace(moe, weighting="softmax_chosen")), count)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(
        spec,
        embed_scale=reader.number("embedding_multiplier", 1.0),
        residual_scale=reader.number("residual_multiplier", 1.0),
        logit_scale=1.0 / reader.number("logits_scaling", 1.0),
    )


FAMILY = llama_like(
    "granitemoe",
    Defaults(2048, bos_id=1, eos_id=2),
    Layout(_layers, finish=_finish),
    names=_NAMES,
)
