"""GPT-2, and the models of its architecture (Cerebras-GPT, LaMini-GPT)."""

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
from mobilepack.models.families.names import At, stacked
from mobilepack.models.families.reading import Defaults, layer_count, layer_norm
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec, PositionsSpec

_DEFAULTS = Defaults(1024, bos_id=50256, eos_id=50256, tied=True)
_BLOCK = "transformer.h.{i}."
_QKV = At(_BLOCK + "attn.c_attn", stacked, transposed=True)

NAMES: dict[str, str | At] = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attn_norm": _BLOCK + "ln_1",
    "mlp_norm": _BLOCK + "ln_2",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "o": At(_BLOCK + "attn.c_proj", transposed=True),
    "up": At(_BLOCK + "mlp.c_fc", transposed=True),
    "down": At(_BLOCK + "mlp.c_proj", transposed=True),
}


def describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_gpt2.py)."""
    gpt2_keys(reader)
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_epsilon")
    heads, head_dim = equal_heads(reader, hidden)
    base = head_dim**-0.5 if reader.flag("scale_attn_weights", True) else 1.0
    by_layer = reader.flag("scale_attn_by_inverse_layer_idx", False)
    reader.flag("reorder_and_upcast_attn", False)  # the same in float32
    ffn = plain_ffn(reader, hidden, "activation_function", "gelu_new")
    layers = tuple(
        LayerSpec(
            AttentionSpec(
                heads,
                heads,
                head_dim,
                qkv_bias=True,
                o_bias=True,
                scale=base / (index + 1) if by_layer else base,
            ),
            ffn,
            norm,
        )
        for index in range(layer_count(reader))
    )
    spec = assembled(reader, "gpt2", _DEFAULTS, layers, norm)
    return replace(spec, positions=PositionsSpec(spec.max_positions))


FAMILY = ConfiguredFamily(("gpt2",), describe, NAMES, renamed=(PREFIXED,))
