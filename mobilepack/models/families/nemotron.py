"""Nemotron and Minitron: layer norms of 1 + w, squared ReLU without a gate, half heads rotated."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like, with_ffn
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import LayerSpec, NormSpec


def _norm(reader: ConfigReader, eps: float) -> NormSpec:
    return NormSpec("layer", reader.number("norm_eps", eps), bias=True, offset=1.0)


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    return uniform(with_ffn(biased(reader, block), gated=False), count)


FAMILY = llama_like(
    "nemotron",
    Defaults(4096, bos_id=2, eos_id=3, eps=1e-5, activation="relu2"),
    Layout(_layers, norm=_norm, rope=RopeHabits(partial=0.5)),
    harmless="rotary_percent|rope_percent",
)
