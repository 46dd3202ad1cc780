"""GPT-BigCode (StarCoder 1, SantaCoder): GPT-2 with one key and value for all heads."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families import gpt2
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import (
    PREFIXED,
    assembled,
    equal_heads,
    gpt2_keys,
    plain_ffn,
)
from mobilepack.models.families.names import At, Names, attention, by_group, stacked
from mobilepack.models.families.reading import Defaults, layer_count, layer_norm, uniform
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec, PositionsSpec

_DEFAULTS = Defaults(1024, bos_id=50256, eos_id=50256, tied=True)


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_gpt_bigcode.py)."""
    gpt2_keys(reader)
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_epsilon")
    heads, head_dim = equal_heads(reader, hidden)
    for key in ("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"):
        reader.flag(key, True)  # the same in float32
    kv_heads = 1 if reader.flag("multi_query", True) else heads
    reader.get("num_key_value_heads")
    scale = head_dim**-0.5 if reader.flag("scale_attn_weights", True) else 1.0
    mixer = AttentionSpec(heads, kv_heads, head_dim, qkv_bias=True, o_bias=True, scale=scale)
    ffn = plain_ffn(reader, hidden, "activation_function", "gelu_pytorch_tanh")
    layers = uniform(LayerSpec(mixer, ffn, norm), layer_count(reader))
    spec = assembled(reader, "gpt_bigcode", _DEFAULTS, layers, norm)
    return replace(spec, positions=PositionsSpec(spec.max_positions))


def _names(spec: DecoderSpec) -> Names:
    rows = stacked if attention(spec.layers[0]).n_kv_heads == 1 else by_group
    names = {k: At(v.key) if isinstance(v, At) else v for k, v in gpt2.NAMES.items()}
    return names | {part: At("transformer.h.{i}.attn.c_attn", rows) for part in "qkv"}


FAMILY = ConfiguredFamily(
    ("gpt_bigcode",),
    _describe,
    _names,
    renamed=(PREFIXED,),
    harmless="inference_runner|validate_runner_input|pre_allocate_kv_cache|max_batch_size|"
    "max_sequence_length|attention_type",
)
