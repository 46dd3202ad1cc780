"""SmolLM3: Llama in which every fourth block does not rotate."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like, with_attention
from mobilepack.models.families.names import attention
from mobilepack.models.families.reading import Defaults, layer_types, window_size
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import LayerSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    """transformers 5.23 configuration_smollm3.py: 1 in `no_rope_layers` means that it rotates."""
    every = reader.integer("no_rope_layer_interval", 4)
    rotates = [(index + 1) % every != 0 for index in range(count)]
    listed = reader.get("no_rope_layers")
    if isinstance(listed, list) and listed:
        if len(listed) != count or not all(item in (0, 1) for item in listed):
            reader.problem("no_rope_layers", f"must be a list of {count} zeros and ones")
        rotates = [bool(item) for item in listed][:count]
    size = window_size(reader, None) if reader.flag("use_sliding_window", False) else None
    reader.get("sliding_window")
    usual = ["full_attention" if size is None or on else "sliding_attention" for on in rotates]
    kinds = layer_types(reader, count) or usual
    block = biased(reader, block)
    return tuple(
        with_attention(
            block,
            rope=attention(block).rope if on else None,
            window=size if kind == "sliding_attention" else None,
        )
        for on, kind in zip(rotates, kinds, strict=False)
    )


FAMILY = llama_like(
    "smollm3",
    Defaults(32768, n_kv_heads=4, bos_id=128000, eos_id=128001, tied=True),
    Layout(_layers, rope=RopeHabits(theta=2_000_000.0)),
)
