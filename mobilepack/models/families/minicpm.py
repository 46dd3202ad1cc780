"""MiniCPM 1B and 2B: Llama with factors named after the sizes they come from (arXiv 2404.06395).

The published checkpoints bring their own code; what it computes is Granite's algebra: the embedding
times `scale_emb`, every sub-layer times `scale_depth / sqrt(layers)`, and the last hidden state
divided by `hidden_size / dim_model_base`.
"""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    return uniform(biased(reader, block), count)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(
        spec,
        embed_scale=reader.number("scale_emb", 1.0),
        residual_scale=reader.number("scale_depth", 1.0) / len(spec.layers) ** 0.5,
        logit_scale=reader.number("dim_model_base", 1.0) / spec.hidden_size,
    )


FAMILY = llama_like(
    "minicpm",
    Defaults(2048, bos_id=1, eos_id=2, tied=True),
    Layout(_layers, finish=_finish),
)
