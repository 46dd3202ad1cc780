"""The text half of LLaVA: a Llama, Mistral or Qwen 2 beside a vision tower, which is left out."""

from __future__ import annotations

import re

from mobilepack.models.config import ConfigReader, Json, JsonObject, show
from mobilepack.models.families import llama, mistral, qwen2
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.names import Names
from mobilepack.models.spec import DecoderSpec

_TEXT = {"llama": llama.FAMILY, "mistral": mistral.FAMILY, "qwen2": qwen2.FAMILY}
# What a silent text config means: transformers 5.23 LlamaConfig, which LLaVA 1.5 relies on.
_SIZES: JsonObject = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    value = reader.get("text_config")
    given = value if isinstance(value, dict) else {}
    kind = given.get("model_type", "llama")
    if not isinstance(kind, str) or kind not in _TEXT:
        names = ", ".join(_TEXT)
        reader.problem("text_config", f"has the model_type {show(kind)}; known here: {names}")
        kind = "llama"
    sizes = _SIZES if kind == "llama" else {}
    inner = {**sizes, **given, "model_type": kind, **_tied(reader)}
    return _TEXT[kind].read(inner, f"{reader.file}, text_config")


def _tied(reader: ConfigReader) -> dict[str, Json]:
    named = reader.names("tie_word_embeddings")
    return {"tie_word_embeddings": reader.flag("tie_word_embeddings", False)} if named else {}


def _names(spec: DecoderSpec) -> Names:
    names = _TEXT[spec.family].names
    return names(spec) if callable(names) else names


FAMILY = ConfiguredFamily(
    ("llava",),
    _describe,
    _names,
    renamed=(
        (("model.", "language_model.model."), ("lm_head", "language_model.lm_head")),
        (("model.", "model.language_model."),),
    ),
    ignored=re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*|model\.image_newline"),
    harmless=r"vision_\w+|image_\w+|projector_\w+|multimodal_projector_bias|ignore_index|\w+_token_id",
)
