"""Mistral 7B and its kin: Llama with one sliding window for all blocks."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import Defaults, LlamaLike, layer_types, uniform, window_size
from mobilepack.models.spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    window = window_size(reader)
    kinds = set(layer_types(reader, count))
    if kinds and kinds != {"full_attention" if window is None else "sliding_attention"}:
        # transformers warns and applies the window to every block; that would be another model.
        reader.problem("layer_types", "contradicts sliding_window; this is not a plain Mistral")
    return uniform(replace(block, window=window), count)


FAMILY = LlamaLike(
    ("mistral",), Defaults(max_positions=131_072, n_kv_heads=8, bos_id=1, eos_id=2), _layers
)
