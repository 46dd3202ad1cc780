"""Gemma: Llama with norms of 1 + w, scaled embeddings, and a tanh GELU in the gate."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like, with_ffn
from mobilepack.models.families.reading import Defaults, uniform
from mobilepack.models.layer_spec import LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec


def one_plus(reader: ConfigReader, eps: float) -> NormSpec:
    """Return Gemma's norm, whose weights are stored as w - 1."""
    return NormSpec("rms", reader.number("rms_norm_eps", eps), offset=1.0)


def scaled_embedding(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    """Multiply the embedded tokens by the root of their channels (Gemma report, section 2)."""
    reader.fixed("use_bidirectional_attention", False)
    return replace(spec, embed_scale=spec.hidden_size**0.5)


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    # transformers 5.23 configuration_gemma.py: "gelu" in the first configs meant the tanh form.
    named = reader.get("hidden_activation") or reader.get("hidden_act")
    reader.fixed("hidden_activation", "gelu_pytorch_tanh", "gelu", "gelu_new")
    if named == "gelu":
        block = with_ffn(block, activation="gelu_tanh")
    return uniform(biased(reader, block), count)


FAMILY = llama_like(
    "gemma",
    Defaults(
        8192,
        n_kv_heads=16,
        head_dim=256,
        bos_id=2,
        eos_id=1,
        tied=True,
        activation="gelu_pytorch_tanh",
    ),
    Layout(_layers, norm=one_plus, finish=scaled_embedding),
)
