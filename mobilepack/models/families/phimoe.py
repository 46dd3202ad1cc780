"""Phi-3.5-MoE: layer norms, biases, longrope, and experts weighted by SparseMixer."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.experts import MIXTRAL_NAMES, read_experts
from mobilepack.models.families.llama_like import Layout, llama_like, with_attention
from mobilepack.models.families.reading import Defaults, layer_norm, uniform, window_size
from mobilepack.models.families.rope_config import RopeHabits
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    bias = reader.flag("attention_bias", False)
    window = window_size(reader, None)
    block = with_attention(block, qkv_bias=bias, o_bias=bias, window=window)
    reader.number("input_jitter_noise", 0.0, above=-1.0)  # noise in training only
    moe = replace(
        read_experts(reader, block, "num_local_experts", (16, 2)),
        weighting="sparsemixer",
        jitter=reader.number("router_jitter_noise", 0.01),
    )
    if moe.count != 2:
        # transformers 5.23 `sparsemixer` takes two whatever the config says.
        reader.problem("num_experts_per_tok", f"is {moe.count}; only 2 can be built")
    return uniform(replace(block, ffn=moe), count)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(spec, head_bias=reader.flag("lm_head_bias", False))


FAMILY = llama_like(
    "phimoe",
    Defaults(131_072, n_kv_heads=8, bos_id=1, eos_id=2, eps=1e-5),
    Layout(
        _layers,
        norm=lambda reader, eps: layer_norm(reader, "rms_norm_eps", eps),
        rope=RopeHabits(theta=1e6),
        finish=_finish,
    ),
    names=MIXTRAL_NAMES,
)
