"""Cohere (Command R, Aya): parallel sub-layers, neighbours rotated in pairs, scaled logits."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    reader.fixed("use_qk_norm", False)  # only Command R+ (104B) has it
    return uniform(replace(biased(reader, block), form="parallel"), count)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(spec, logit_scale=reader.number("logit_scale", 0.0625))


FAMILY = llama_like(
    "cohere",
    Defaults(8192, bos_id=5, eos_id=255001, tied=True, eps=1e-5),
    Layout(
        _layers,
        norm=lambda reader, eps: NormSpec("layer", reader.number("layer_norm_eps", eps)),
        rope=RopeHabits(theta=500_000.0, interleaved=True),
        finish=_finish,
    ),
    harmless="model_max_length",
)
