"""Llama 2, 3 and 3.2, and the many models of its architecture (SmolLM, TinyLlama, ...)."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.layer_spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    reader.fixed("rope_interleaved", False)
    return uniform(biased(reader, block), count)


FAMILY = llama_like("llama", Defaults(2048, bos_id=1, eos_id=2), Layout(_layers))
