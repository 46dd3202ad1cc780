"""What llama.cpp calls each family, and how its metadata become that family's config.json.

Architectures are named as in llama.cpp's src/llama-arch.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mobilepack.models.config import Json
from mobilepack.models.gguf import describe
from mobilepack.models.gguf.describe import Config
from mobilepack.models.gguf.keys import Keys
from mobilepack.models.weight_file import TensorInfo


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture.

    Attributes:
        model_type: Of the family that reads it.
        describe: Returns the family's config, except vocabulary, ends and tying.
        pairs: The converter brought the channels that rotate together side by side.
    """

    model_type: str | Callable[[Keys], str]
    describe: Callable[[Keys], Config]
    pairs: bool = False


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture(describe.llama_type, describe.llama, pairs=True),
        "qwen2": Architecture("qwen2", describe.qwen2),
        "qwen2moe": Architecture("qwen2_moe", describe.qwen2_moe),
        "qwen3": Architecture("qwen3", describe.qwen3),
        "qwen3moe": Architecture("qwen3_moe", describe.qwen3_moe),
        "phi2": Architecture("phi", describe.phi2),
        "phi3": Architecture("phi3", describe.phi3),
        "gemma": Architecture("gemma", describe.gemma),
        "gemma2": Architecture("gemma2", describe.gemma2),
        "gemma3": Architecture("gemma3_text", describe.gemma3),
        "stablelm": Architecture("stablelm", describe.stablelm),
        "gpt2": Architecture("gpt2", describe.gpt2),
        "gptneox": Architecture("gpt_neox", describe.gpt_neox),
        "bloom": Architecture("bloom", describe.bloom),
        "falcon": Architecture("falcon", describe.falcon),
        "starcoder": Architecture("gpt_bigcode", describe.gpt_bigcode),
        "starcoder2": Architecture("starcoder2", describe.starcoder2),
        "olmo": Architecture("olmo", describe.olmo, pairs=True),
        "olmo2": Architecture("olmo2", describe.olmo2),
        "olmoe": Architecture("olmoe", describe.olmoe),
        "granite": Architecture("granite", describe.granite, pairs=True),
        "granitemoe": Architecture("granitemoe", describe.granite, pairs=True),
        "minicpm": Architecture("minicpm", describe.minicpm, pairs=True),
        "command-r": Architecture("cohere", describe.cohere),
        "nemotron": Architecture("nemotron", describe.nemotron),
        "smollm3": Architecture("smollm3", describe.smollm3, pairs=True),
    }
)
"""By `general.architecture`."""


def rotated_pairs(
    metadata: Mapping[str, Json], tensors: Mapping[str, TensorInfo]
) -> dict[str, int]:
    """Return the channels per head of every tensor whose rotated channels lie in pairs."""
    name = metadata.get("general.architecture")
    found = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if found is None or not found.pairs:
        return {}
    heads = {
        part: metadata.get(f"{name}.attention.{key}")
        for part, key in (("attn_q.", "head_count"), ("attn_k.", "head_count_kv"))
    }
    heads["attn_k."] = heads["attn_k."] or heads["attn_q."]
    return {
        key: info.shape[0] // count
        for key, info in tensors.items()
        for part, count in heads.items()
        if f".{part}" in key and isinstance(count, int) and count > 0
        if info.shape[0] % (2 * count) == 0
    }
