"""OPT (the 350M model with its norms after the sub-layers) and Galactica."""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import assembled, equal_heads, plain_ffn
from mobilepack.models.families.reading import Defaults, layer_count, uniform
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec, PositionsSpec

_DEFAULTS = Defaults(2048, bos_id=2, eos_id=2, tied=True)
_EPS = 1e-5  # torch's default; transformers 5.23 modeling_opt.py names none
_OFFSET = 2  # OPTLearnedPositionalEmbedding: two rows were for padding in fairseq
_MODEL = "model.decoder."
_BLOCK = _MODEL + "layers.{i}."

_NAMES = {
    "embed": _MODEL + "embed_tokens",
    "positions": _MODEL + "embed_positions",
    "project_in": _MODEL + "project_in",
    "project_out": _MODEL + "project_out",
    "norm": _MODEL + "final_layer_norm",
    "head": "lm_head",
    "attn_norm": _BLOCK + "self_attn_layer_norm",
    "mlp_norm": _BLOCK + "final_layer_norm",
    **{name: f"{_BLOCK}self_attn.{name}_proj" for name in "qkv"},
    "o": _BLOCK + "self_attn.out_proj",
    "up": _BLOCK + "fc1",
    "down": _BLOCK + "fc2",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    """Read a config (transformers 5.23 configuration_opt.py)."""
    reader.alias(intermediate_size="ffn_dim")
    hidden, bias = reader.integer("hidden_size"), reader.flag("enable_bias", True)
    affine = reader.flag("layer_norm_elementwise_affine", True)
    norm = NormSpec("layer", _EPS, weight=affine, bias=affine)
    heads, head_dim = equal_heads(reader, hidden)
    before = reader.flag("do_layer_norm_before", True)
    removed = reader.flag("_remove_final_layer_norm", False)
    block = LayerSpec(
        AttentionSpec(heads, heads, head_dim, qkv_bias=bias, o_bias=bias),
        plain_ffn(reader, hidden, "activation_function", "relu", bias=bias),
        norm,
        form="pre" if before else "post",
    )
    final = norm if before and not removed else None
    layers = uniform(block, layer_count(reader))
    spec = assembled(reader, "opt", _DEFAULTS, layers, final)
    table = reader.integer("word_embed_proj_dim", hidden)
    return replace(
        spec,
        embed_size=None if table == hidden else table,
        positions=PositionsSpec(spec.max_positions + _OFFSET, _OFFSET),
    )


FAMILY = ConfiguredFamily(("opt",), _describe, _NAMES, renamed=((("model.decoder.", "decoder."),),))
