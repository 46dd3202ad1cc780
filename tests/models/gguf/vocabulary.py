"""The embedded model's vocabulary as a GGUF file has it."""

from __future__ import annotations

import json
from typing import Any

from mobilepack.models.zoo import embedded_path

_NORMAL, _CONTROL = 1, 3


def embedded() -> dict[str, Any]:
    """Return what llama.cpp's converter writes of the embedded model's tokenizer."""
    data = json.loads((embedded_path() / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((embedded_path() / "tokenizer_config.json").read_text("utf-8"))
    by_id = {index: token for token, index in data["model"]["vocab"].items()}
    by_id |= {token["id"]: token["content"] for token in data["added_tokens"]}
    special = {token["id"] for token in data["added_tokens"]}
    merges = data["model"]["merges"]
    return {
        "model": "gpt2",
        "pre": "grok-2",  # the same expression, without composing characters first
        "tokens": [by_id[index] for index in range(len(by_id))],
        "token_type": [_CONTROL if i in special else _NORMAL for i in range(len(by_id))],
        "merges": [m if isinstance(m, str) else " ".join(m) for m in merges],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": True,
        "chat_template": settings["chat_template"],
    }


def embedded_metadata() -> dict[str, Any]:
    """Return it under the keys of a file."""
    keys = {f"tokenizer.ggml.{key}": value for key, value in embedded().items()}
    return keys | {"tokenizer.chat_template": keys.pop("tokenizer.ggml.chat_template")}
