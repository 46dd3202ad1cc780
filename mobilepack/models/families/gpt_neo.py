"""GPT-Neo: blocks with full and with local attention take turns."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader, Json
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import PREFIXED, assembled, equal_heads, plain_ffn
from mobilepack.models.families.reading import Defaults, layer_count, layer_norm
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec, PositionsSpec

_DEFAULTS = Defaults(2048, bos_id=50256, eos_id=50256, tied=True)
_BLOCK = "transformer.h.{i}."

_NAMES = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attn_norm": _BLOCK + "ln_1",
    "mlp_norm": _BLOCK + "ln_2",
    **{name: f"{_BLOCK}attn.attention.{name}_proj" for name in "qkv"},
    "o": _BLOCK + "attn.attention.out_proj",
    "up": _BLOCK + "mlp.c_fc",
    "down": _BLOCK + "mlp.c_proj",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_gpt_neo.py)."""
    reader.alias(num_hidden_layers="num_layers", num_attention_heads="num_heads")
    hidden, norm = reader.integer("hidden_size"), layer_norm(reader, "layer_norm_epsilon")
    heads, head_dim = equal_heads(reader, hidden)
    # The scores are not scaled: the initialisation took the factor in (modeling_gpt_neo.py).
    mixer = AttentionSpec(heads, heads, head_dim, o_bias=True, scale=1.0)
    block = LayerSpec(mixer, plain_ffn(reader, hidden, "activation_function", "gelu_new"), norm)
    local = replace(block, mixer=replace(mixer, window=reader.integer("window_size", 256)))
    kinds = _kinds(reader, layer_count(reader))
    layers = tuple(local if kind == "local" else block for kind in kinds)
    spec = assembled(reader, "gpt_neo", _DEFAULTS, layers, norm)
    return replace(spec, positions=PositionsSpec(spec.max_positions))


def _kinds(reader: ConfigReader, count: int) -> list[str]:
    """Return `global` or `local` per block, from `attention_types`: [[kinds, repeats], ...]."""
    value = reader.get("attention_types")
    items: Json = [[["global", "local"], 12]] if value is None else value
    kinds: list[str] = []
    for item in items if isinstance(items, list) else []:
        match item:
            case [[*names], int(repeats)] if repeats <= count:
                kinds += [str(name) for name in names] * repeats
    if len(kinds) != count or not set(kinds) <= {"global", "local"}:
        reader.problem(
            "attention_types", f"must list global or local for each of the {count} blocks"
        )
        return ["global"] * count
    stated = reader.get("attention_layers")
    if stated is not None and stated != kinds:
        reader.problem("attention_layers", "contradicts attention_types")
    return kinds


FAMILY = ConfiguredFamily(("gpt_neo",), _describe, _NAMES, renamed=(PREFIXED,))
