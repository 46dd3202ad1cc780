"""CodeGen: GPT-J with queries, values and keys fused in four runs (its training hardware's)."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families import gptj
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import PREFIXED
from mobilepack.models.families.names import At, Rows, attention
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec

_RUNS = 4  # transformers 5.23 modeling_codegen.py: mp_num


def _rows(name: str, layer: LayerSpec) -> Rows:
    """Return the rows in `[run][query, value, key][heads of the run]`."""
    local = attention(layer).q_size // _RUNS
    start = {"q": 0, "v": 1, "k": 2}[name] * local
    return start, ((_RUNS, 3 * local), (local, 1))


def _describe(reader: ConfigReader) -> DecoderSpec:
    spec = gptj.describe(reader, "codegen")
    heads = attention(spec.layers[0]).n_heads if spec.layers else _RUNS
    if heads % _RUNS:
        reader.problem("num_attention_heads", f"is {heads}; CodeGen's must divide by {_RUNS}")
    return spec


_QKV = At("transformer.h.{i}.attn.qkv_proj", _rows)

FAMILY = ConfiguredFamily(
    ("codegen",),
    _describe,
    gptj.NAMES | {"q": _QKV, "k": _QKV, "v": _QKV},
    renamed=(PREFIXED,),
    harmless="rotary|scale_attn_weights",
)
