"""Mistral 7B and its kin: Llama with one sliding window for all blocks."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, layer_types, uniform, window_size
from mobilepack.models.layer_spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    window = window_size(reader)
    kinds = set(layer_types(reader, count))
    if kinds and kinds != {"full_attention" if window is None else "sliding_attention"}:
        # transformers warns and applies the window to every block; that would be another model.
        reader.problem("layer_types", "contradicts sliding_window; this is not a plain Mistral")
    return uniform(with_attention(block, window=window), count)


FAMILY = llama_like("mistral", Defaults(131_072, n_kv_heads=8, bos_id=1, eos_id=2), Layout(_layers))
