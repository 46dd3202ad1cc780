"""Granite: Llama whose embedding, residuals, scores and logits have factors."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = with_attention(block, scale=reader.number("attention_multiplier", 1.0))
    return uniform(biased(reader, block), count)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(
        spec,
        embed_scale=reader.number("embedding_multiplier", 1.0),
        residual_scale=reader.number("residual_multiplier", 1.0),
        logit_scale=1 / reader.number("logits_scaling", 1.0),
    )


FAMILY = llama_like("granite", Defaults(2048, bos_id=1, eos_id=2), Layout(_layers, finish=_finish))
