"""StarCoder2: layer norms, biases everywhere, tanh GELU without a gate, a sliding window."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import (
    LLAMA_NAMES,
    Layout,
    llama_like,
    with_attention,
    with_ffn,
)
from mobilepack.models.families.reading import Defaults, layer_norm, uniform, window_size
from mobilepack.models.layer_spec import LayerSpec

_NAMES = LLAMA_NAMES | {
    "up": "model.layers.{i}.mlp.c_fc",
    "down": "model.layers.{i}.mlp.c_proj",
}


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    reader.fixed("mlp_type", "default")
    reader.fixed("norm_type", "layer_norm")
    bias = reader.flag("use_bias", True)
    block = with_attention(block, qkv_bias=bias, o_bias=bias, window=window_size(reader, None))
    return uniform(with_ffn(block, gated=False, bias=bias), count)


FAMILY = llama_like(
    "starcoder2",
    Defaults(
        4096,
        n_kv_heads=2,
        bos_id=50256,
        eos_id=50256,
        tied=True,
        eps=1e-5,
        activation="gelu_pytorch_tanh",
    ),
    Layout(_layers, norm=lambda reader, eps: layer_norm(reader, "norm_epsilon", eps)),
    names=_NAMES,
    harmless="activation_function",
)
