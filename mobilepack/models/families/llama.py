"""Llama 2, 3 and 3.2, and the many models of its architecture (SmolLM, TinyLlama, ...)."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import Defaults, LlamaLike, uniform
from mobilepack.models.spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    block = replace(block, qkv_bias=bias, o_bias=bias, mlp_bias=reader.flag("mlp_bias", False))
    return uniform(block, count)


FAMILY = LlamaLike(("llama",), Defaults(max_positions=2048, bos_id=1, eos_id=2), _layers)
