"""OpenELM: Qwen 3's block with its own number of heads and channels in every layer.

The published checkpoints bring their own code; the architecture is arXiv 2404.14619, section 2, and
the numbers come from config.json's lists.
"""

from __future__ import annotations

from mobilepack.models.config import ConfigReader, Json
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.names import At, stacked
from mobilepack.models.families.reading import (
    Defaults,
    bos_id,
    eos_ids,
    even,
    layer_count,
    read_activation,
)
from mobilepack.models.layer_spec import (
    AttentionSpec,
    FeedForwardSpec,
    HeadNormSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
)
from mobilepack.models.spec import DecoderSpec

_DEFAULTS = Defaults(2048, bos_id=1, eos_id=2, tied=True)
_NORM = NormSpec("rms", 1e-6)  # modeling_openelm.py, OpenELMRMSNorm
_BLOCK = "transformer.layers.{i}."
_QKV = At(_BLOCK + "attn.qkv_proj", stacked)
_GATE_UP = At(_BLOCK + "ffn.proj_1", stacked)

_NAMES: dict[str, str | At] = {
    "embed": "transformer.token_embeddings",
    "norm": "transformer.norm",
    "head": "lm_head",
    "attn_norm": _BLOCK + "attn_norm",
    "mlp_norm": _BLOCK + "ffn_norm",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "q_norm": _BLOCK + "attn.q_norm",
    "k_norm": _BLOCK + "attn.k_norm",
    "o": _BLOCK + "attn.out_proj",
    "gate": _GATE_UP,
    "up": _GATE_UP,
    "down": _BLOCK + "ffn.proj_2",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (apple/OpenELM-270M configuration_openelm.py)."""
    reader.alias(
        hidden_size="model_dim",
        num_hidden_layers="num_transformer_layers",
        max_position_embeddings="max_context_length",
        tie_word_embeddings="share_input_output_layers",
    )
    reader.fixed("normalization_layer_name", "rms_norm")
    reader.fixed("ffn_with_glu", True)
    hidden, count = reader.integer("hidden_size"), layer_count(reader)
    return DecoderSpec(
        family="openelm",
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden,
        layers=_layers(reader, hidden, count),
        norm=_NORM,
        tied_head=reader.flag("tie_word_embeddings", True),
        max_positions=reader.integer("max_position_embeddings", _DEFAULTS.max_positions),
        bos_id=bos_id(reader, _DEFAULTS),
        eos_ids=eos_ids(reader, _DEFAULTS),
    )


def _layers(reader: ConfigReader, hidden: int, count: int) -> tuple[LayerSpec, ...]:
    dim = even(reader, "head_dim", reader.integer("head_dim", 128))
    rope = RopeSpec("default", reader.number("rope_freq_constant", 10_000.0), dim)
    qk_norm = HeadNormSpec(_NORM) if reader.flag("normalize_qk_projections", True) else None
    activation = read_activation(reader, "activation_fn_name", "swish")
    divisor = reader.integer("ffn_dim_divisor", 256)
    heads = _numbers(reader, "num_query_heads", count)
    kv_heads = _numbers(reader, "num_kv_heads", count)
    factors = _numbers(reader, "ffn_multipliers", count)
    for index, (query, key) in enumerate(zip(heads, kv_heads, strict=True)):
        if int(query) % int(key):
            reader.problem("num_query_heads", f"of layer {index} is no multiple of num_kv_heads")
            return ()
    return tuple(
        LayerSpec(
            AttentionSpec(int(query), int(key), dim, rope=rope, qk_norm=qk_norm),
            FeedForwardSpec(_divisible(factor * hidden, divisor), activation),
            _NORM,
        )
        for query, key, factor in zip(heads, kv_heads, factors, strict=True)
    )


def _numbers(reader: ConfigReader, key: str, count: int) -> list[float]:
    """Read a list of one positive number per layer."""
    value: Json = reader.get(key)
    items = value if isinstance(value, list) else []
    found = [
        float(x) for x in items if isinstance(x, int | float) and not isinstance(x, bool) and x > 0
    ]
    if len(found) != count or len(found) != len(items):
        reader.problem(key, f"must be a list of {count} positive numbers, one per layer")
        return [1.0] * count
    return found


def _divisible(size: float, divisor: int) -> int:
    """Return the multiple next to a size, at most a tenth smaller (`make_divisible`)."""
    rounded = max(divisor, int(size + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * size else rounded


FAMILY = ConfiguredFamily(
    ("openelm",),
    _describe,
    _NAMES,
    harmless="num_gqa_groups|qkv_multipliers|rope_max_length",
)
