"""A GGUF file's metadata as config.json and generation_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mobilepack.errors import UsageError, near_misses
from mobilepack.models.config import Json, show
from mobilepack.models.gguf.architectures import ARCHITECTURES, Architecture
from mobilepack.models.gguf.keys import FACTORS, Keys

if TYPE_CHECKING:
    from mobilepack.models.gguf.file import GgufFile

EMBEDDING = "token_embd.weight"
_HEAD = "output.weight"
_MAX_FACTORS = 4096  # pairs of channels of a head; the widest published heads have 256
_ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>")
"""Control tokens that end an answer whatever the file says (llama.cpp llama-vocab.cpp)."""

_CONTROL = 3  # gguf-py TokenType


def config_of(file: GgufFile) -> dict[str, Json]:
    """Return the config that the family's reader takes.

    Raises:
        UsageError: The architecture is unknown, or the metadata are wrong or not understood.
    """
    name, found = _architecture(file)
    keys = Keys(name, file.metadata, file.tensors, factors_of(file), file.path.name)
    config = found.describe(keys)
    model_type = found.model_type if isinstance(found.model_type, str) else found.model_type(keys)
    keys.finish()
    if EMBEDDING not in file.tensors:
        raise _no_embedding(file)
    begin, ends = _special_ids(file.metadata)
    config |= {
        "model_type": model_type,
        "vocab_size": file.tensors[EMBEDDING].shape[0],
        "tie_word_embeddings": _HEAD not in file.tensors,
        "bos_token_id": begin,
        "eos_token_id": ends[0] if ends else None,
    }
    return config


def generation_config_of(file: GgufFile) -> dict[str, Json]:
    """Return every id that ends an answer."""
    _, ends = _special_ids(file.metadata)
    return {"eos_token_id": [*ends]} if ends else {}


def _architecture(file: GgufFile) -> tuple[str, Architecture]:
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UsageError(
            "unsupported-architecture",
            f"cannot build the architecture {show(name)}",
            why=f"{file.path.name} has a general.architecture that no family reads; supported: "
            + ", ".join(sorted(ARCHITECTURES)),
            next=near_misses(str(name), list(ARCHITECTURES)),
        )
    parts = file.metadata.get("split.count", 1)
    if parts not in (0, 1):
        raise UsageError(
            "gguf-split",
            f"cannot build from {file.path} alone",
            why=f"it is one of {show(parts)} parts of a model",
            next="join the parts with llama.cpp: llama-gguf-split --merge FIRST-PART WHOLE",
        )
    return name, ARCHITECTURES[name]


def factors_of(file: GgufFile) -> dict[str, tuple[float, ...]]:
    """Return the small tensors that the rotation's frequencies are divided by."""
    return {
        name: tuple(file.read_rows(name, 0, file.tensors[name].shape[0]).tolist())
        for name in FACTORS
        if name in file.tensors
        and len(file.tensors[name].shape) == 1
        and file.tensors[name].shape[0] <= _MAX_FACTORS
    }


def _special_ids(metadata: Mapping[str, Json]) -> tuple[int | None, list[int]]:
    def named(name: str) -> int | None:
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    found = [named("eos"), named("eot"), named("eom"), *_ends_of_turn(metadata)]
    begin = named("bos")
    if metadata.get("tokenizer.ggml.model") == "llama":  # llama-vocab.cpp: defaults of its kind
        begin = 1 if begin is None else begin
        found[0] = 2 if found[0] is None else found[0]
    return begin, list(dict.fromkeys(index for index in found if index is not None))


def _ends_of_turn(metadata: Mapping[str, Json]) -> list[int]:
    """Return the control tokens that end an answer by their names, for models that chat."""
    tokens, kinds = (metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    if not isinstance(tokens, list) or not isinstance(kinds, list):
        return []
    if "tokenizer.chat_template" not in metadata:
        return []
    return [
        index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind == _CONTROL and token in _ENDS_OF_TURN
    ]


def _no_embedding(file: GgufFile) -> UsageError:
    return UsageError(
        "weights-mismatch",
        f"{file.path} holds no language model",
        why=f"it has no tensor {EMBEDDING}",
        next="give the file of the language model, not of a vision tower or an adapter",
    )
