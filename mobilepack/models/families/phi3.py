"""Phi-3, 3.5 and 4-mini: Llama with fused maps, longrope and (4-mini) partial rotation."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import (
    LLAMA_NAMES,
    Layout,
    llama_like,
    with_attention,
)
from mobilepack.models.families.names import At, stacked
from mobilepack.models.families.reading import Defaults, uniform, window_size
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import LayerSpec

_QKV = At("model.layers.{i}.self_attn.qkv_proj", stacked)
_GATE_UP = At("model.layers.{i}.mlp.gate_up_proj", stacked)
_NAMES: dict[str, str | At] = LLAMA_NAMES | {
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "gate": _GATE_UP,
    "up": _GATE_UP,
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    reader.fixed("attention_bias", False)
    reader.fixed("mlp_bias", False)
    return uniform(with_attention(block, window=window_size(reader, None)), count)


FAMILY = llama_like(
    "phi3",
    Defaults(4096, bos_id=1, eos_id=32000, eps=1e-5),
    # transformers 5.23 configuration_phi3.py: earlier versions said "su" or "yarn".
    Layout(_layers, rope=RopeHabits(partial=1.0, renamed={"su": "longrope", "yarn": "longrope"})),
    names=_NAMES,
    harmless="interpolate_factor|full_attn_mod|lm_head_bias|mup_\\w+",
)
