"""GPT-J: neighbouring channels are rotated; attention and feed-forward read the same norm."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import (
    PREFIXED,
    assembled,
    equal_heads,
    gpt2_keys,
    plain_ffn,
)
from mobilepack.models.families.reading import Defaults, even, layer_count, layer_norm, uniform
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec, RopeSpec
from mobilepack.models.spec import DecoderSpec

DEFAULTS = Defaults(2048, bos_id=50256, eos_id=50256)
_BLOCK = "transformer.h.{i}."

NAMES = {
    "embed": "transformer.wte",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attn_norm": _BLOCK + "ln_1",
    **{name: f"{_BLOCK}attn.{name}_proj" for name in "qkv"},
    "o": _BLOCK + "attn.out_proj",
    "up": _BLOCK + "mlp.fc_in",
    "down": _BLOCK + "mlp.fc_out",
}


def describe(reader: ConfigReader, family: str = "gptj") -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_gptj.py, configuration_codegen.py)."""
    gpt2_keys(reader)
    reader.get("n_ctx")  # CodeGen repeats n_positions
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_epsilon")
    heads, head_dim = equal_heads(reader, hidden)
    rotated = head_dim  # a null rotates whole heads
    if reader.has("rotary_dim") or not reader.names("rotary_dim"):
        rotated = even(reader, "rotary_dim", reader.integer("rotary_dim", 64))
    if rotated > head_dim:
        reader.problem("rotary_dim", f"is {rotated}; a head has only {head_dim} channels")
    rope = RopeSpec("default", 10_000.0, min(rotated, head_dim), interleaved=True)
    block = LayerSpec(
        AttentionSpec(heads, heads, head_dim, rope=rope),
        plain_ffn(reader, hidden, "activation_function", "gelu_new"),
        norm,
        form="parallel",
    )
    spec = assembled(reader, family, DEFAULTS, uniform(block, layer_count(reader)), norm)
    return replace(spec, head_bias=True)


FAMILY = ConfiguredFamily(
    ("gptj",), describe, NAMES, renamed=(PREFIXED,), harmless="rotary|scale_attn_weights"
)
