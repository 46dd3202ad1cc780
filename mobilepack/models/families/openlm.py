"""OpenLM (DCLM): Llama with layer norms of its own kinds, over all queries and keys too.

The published checkpoints need the open_lm package; what is read here is what its `create_params`
and `Params` (github.com/mlfoundations/open_lm, open_lm/model.py) make of the same keys.
"""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.gpt_like import assembled, equal_heads
from mobilepack.models.families.names import At, stacked
from mobilepack.models.families.reading import Defaults, layer_count, uniform
from mobilepack.models.layer_spec import (
    AttentionSpec,
    FeedForwardSpec,
    HeadNormSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
)
from mobilepack.models.spec import DecoderSpec

_DEFAULTS = Defaults(2048, eos_id=0)  # <|endoftext|> of GPT-NeoX's tokenizer
_EPS = 1e-5
_NORMS = {
    "default_layer_norm": NormSpec("layer", _EPS, bias=True),
    "lp_layer_norm": NormSpec("layer", _EPS, bias=True),
    "gain_only_lp_layer_norm": NormSpec("layer", _EPS),
    "gain_only_layer_norm": NormSpec("layer", _EPS),
    "no_wb_layer_norm": NormSpec("layer", _EPS, weight=False),
    "rms_norm": NormSpec("rms", _EPS),
}
_BLOCK = "model.layers.{i}."
_QKV = At(_BLOCK + "attention.in_proj", stacked)
_GATE_UP = At(_BLOCK + "feed_forward.w12", stacked)

_NAMES: dict[str, str | At] = {
    "embed": "model.tok_embeddings",
    "norm": "model.norm",
    "head": "model.output",
    "attn_norm": _BLOCK + "attention_norm",
    "mlp_norm": _BLOCK + "ffn_norm",
    "q": _QKV,
    "k": _QKV,
    "v": _QKV,
    "q_norm": _BLOCK + "attention.q_norm",
    "k_norm": _BLOCK + "attention.k_norm",
    "o": _BLOCK + "attention.out_proj",
    "gate": _GATE_UP,
    "up": _GATE_UP,
    "down": _BLOCK + "feed_forward.w3",
}


def _describe(outer: ConfigReader) -> DecoderSpec:
    reader = outer.child("params_args_dict") or outer
    reader.alias(
        hidden_size="hidden_dim dim",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        max_position_embeddings="seq_len",
        tie_word_embeddings="weight_tying",
        model_norm="norm_type",
        qk_norm="apply_qk_norm",
    )
    reader.fixed("ffn_type", "swiglu", "swiglu_torch")
    reader.fixed("positional_embedding_type", "rotary")
    reader.fixed("post_embed_norm", False)
    reader.fixed("moe_freq", 0)
    reader.fixed("attn_activation", None)
    reader.fixed("attn_seq_scalar", None)
    reader.fixed("norm_eps", _EPS)
    hidden = reader.integer("hidden_size")
    heads, dim = equal_heads(reader, hidden)
    norm = _NORMS[reader.choice("model_norm", _NORMS, "default_layer_norm")]
    mixer = AttentionSpec(
        heads,
        heads,
        dim,
        rope=RopeSpec("default", 10_000.0, dim),
        qk_norm=HeadNormSpec(norm, "all") if reader.flag("qk_norm", False) else None,
    )
    size = 256 * ((int(2 * 4 * hidden / 3) + 255) // 256)
    layers = uniform(LayerSpec(mixer, FeedForwardSpec(size), norm), layer_count(reader))
    spec = assembled(reader, "openlm", _DEFAULTS, layers, norm)
    for key in ("tie_word_embeddings", "bos_token_id", "eos_token_id", "params"):
        outer.get(key)
    return spec


FAMILY = ConfiguredFamily(
    ("openlm",),
    _describe,
    _NAMES,
    renamed=((("model.", ""),),),
    ignored=None,
    harmless=r"model|attn_name|attn_seq_scalar_alpha|moe_\w+|hidden_dim|dim|n_layers|n_heads|seq_len",
)
