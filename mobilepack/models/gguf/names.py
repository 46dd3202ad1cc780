"""Where the decoder's parameters lie in a GGUF file: nearly the same names for every family."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from mobilepack.models.config import JsonObject
from mobilepack.models.families.base import Family
from mobilepack.models.families.names import At, named_sources, stacked
from mobilepack.models.layer_spec import AttentionSpec, FeedForwardSpec, LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec, TensorSource

_BLOCK = "blk.{i}."

# gguf-py gguf/constants.py TENSOR_NAMES
_NAMES: dict[str, str | At] = {
    "embed": "token_embd",
    "embed_norm": "token_embd_norm",
    "positions": "position_embd",
    "norm": "output_norm",
    "head": "output",
    "attn_norm": _BLOCK + "attn_norm",
    "o": _BLOCK + "attn_output",
    "mlp_norm": _BLOCK + "ffn_norm",
    "attn_post_norm": _BLOCK + "post_attention_norm",
    "mlp_post_norm": _BLOCK + "post_ffw_norm",
    "router": _BLOCK + "ffn_gate_inp",
    "shared_router": _BLOCK + "ffn_gate_inp_shexp",
    **{name: _BLOCK + f"attn_{name}" for name in ("q", "k", "v", "q_norm", "k_norm")},
    **{name: _BLOCK + f"ffn_{name}" for name in ("gate", "up", "down")},
    **{f"experts_{name}": _BLOCK + f"ffn_{name}_exps" for name in ("gate", "up", "down")},
    **{f"shared_{name}": _BLOCK + f"ffn_{name}_shexp" for name in ("gate", "up", "down")},
}
_QKV = At(_BLOCK + "attn_qkv", stacked)
_GATE_UP = At(_BLOCK + "ffn_up", stacked)
_BRANCH = {"attn_norm": _NAMES["attn_post_norm"], "mlp_norm": _NAMES["mlp_post_norm"]}
_TWO_NORMS = {"attn_norm": _BLOCK + "attn_norm_2", "mlp_norm": _BLOCK + "attn_norm"}


_ROTATION = re.compile(r"rope_(freqs|factors_short|factors_long)\.weight")


class GgufFamily:
    """A family whose tensors have llama.cpp's names and layouts.

    Attributes:
        ignored: Tensors that describe the rotation and are read with the metadata.
    """

    def __init__(self, family: Family, keys: Collection[str]) -> None:
        """Take a family and the names of the file's tensors."""
        self._family = family
        self._keys = keys
        self.model_types = family.model_types
        self.ignored = _ROTATION

    def read(self, config: JsonObject, file: str = "config.json") -> DecoderSpec:
        """Return the decoder that a config describes, with norms as the file holds them."""
        return whole_norms(self._family.read(config, file))

    def sources(self, spec: DecoderSpec) -> dict[str, TensorSource]:
        """Return where every parameter lies."""
        names = _NAMES | self._fused(spec.layers[0])
        if spec.layers[0].form == "branch":
            names |= _BRANCH
        elif "blk.0.attn_norm_2.weight" in self._keys:
            names |= _TWO_NORMS
        return named_sources(names, spec)

    def _fused(self, layer: LayerSpec) -> dict[str, str | At]:
        """Return the maps that share one tensor."""
        found: dict[str, str | At] = {}
        if "blk.0.attn_qkv.weight" in self._keys:
            found |= dict.fromkeys("qkv", _QKV)
        gated = isinstance(layer.ffn, FeedForwardSpec) and layer.ffn.gated
        if gated and "blk.0.ffn_gate.weight" not in self._keys:
            found |= dict.fromkeys(("gate", "up"), _GATE_UP)
        return found


def whole_norms(spec: DecoderSpec) -> DecoderSpec:
    """Return a decoder whose norms' weights are read as they are.

    Gemma's and Nemotron's checkpoints hold w - 1; llama.cpp's converter adds the one.
    """
    layers = tuple(_whole_layer(layer) for layer in spec.layers)
    return replace(spec, layers=layers, norm=None if spec.norm is None else _whole(spec.norm))


def _whole_layer(layer: LayerSpec) -> LayerSpec:
    mixer = layer.mixer
    if isinstance(mixer, AttentionSpec) and mixer.qk_norm is not None:
        norm = replace(mixer.qk_norm, norm=_whole(mixer.qk_norm.norm))
        mixer = replace(mixer, qk_norm=norm)
    return replace(layer, mixer=mixer, norm=_whole(layer.norm))


def _whole(norm: NormSpec) -> NormSpec:
    return replace(norm, offset=0.0)
