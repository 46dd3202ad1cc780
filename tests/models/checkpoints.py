"""Tiny Hugging Face checkpoints with random weights, as transformers itself writes them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 320
_CORPUS = (
    "the quick brown fox jumps over the lazy dog; the dog sleeps, the fox runs. "
    "one two three four five six seven eight nine ten. Grüße, 世界! naïve café 🙂 "
)

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
}
ROPE_SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
"""`rope_parameters` of every kind, for `make_checkpoint(..., rope_parameters=ROPE_SCALINGS[k])`."""


def make_checkpoint(
    folder: Path,
    family: str = "llama",
    *,
    dtype: str = "float32",
    shards: int = 1,
    seed: int = 0,
    tokenizer: bool = True,
    chat_template: str | None = CHAT_TEMPLATE,
    **overrides: Any,
) -> Path:
    """Write a tiny random checkpoint with transformers and return its folder.

    Args:
        folder: Where to write; made if absent.
        family: `llama`, `mistral`, `qwen2` or `qwen3`.
        dtype: Element type of the file: `float32`, `bfloat16` or `float16`.
        shards: Files to spread the weights over; more than 1 writes an index too.
        seed: Of the weights.
        tokenizer: Whether a byte-level BPE tokenizer (320 ids) is written.
        chat_template: Put into tokenizer_config.json; None leaves it out.
        **overrides: Keys of config.json, for example `tie_word_embeddings=True`.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model = reference_model(family, seed=seed, **overrides).to(getattr(torch, dtype))
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    largest = max(p.numel() * p.element_size() for p in model.parameters())
    limit = max(total // shards, largest) + 1 if shards > 1 else total + 1
    model.save_pretrained(folder, max_shard_size=limit)
    if tokenizer:
        write_tokenizer(folder, chat_template)
    return folder


def reference_model(family: str = "llama", *, seed: int = 0, **overrides: Any) -> Any:
    """Return a transformers model in fp32, eager attention, weights far from their defaults.

    Norm weights and biases are random too: a decoder that drops one of them must differ.
    """
    import torch

    keys = {**_BASE, **_FAMILY[family], **overrides}
    auto_config, auto_model = quiet_transformers()
    config = auto_config.for_model(family, **keys)
    torch.manual_seed(seed)
    model = auto_model.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.normal_(0.0, scale)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
    return model


def quiet_transformers() -> tuple[Any, Any]:
    """Import quietly: transformers imports torchao, whose sources warn when first compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.models.llama import modeling_llama  # noqa: F401 (imports torchao)
        from transformers.utils import logging
    logging.disable_progress_bar()
    return AutoConfig, AutoModelForCausalLM


def load_reference(folder: Path) -> Any:
    """Load a checkpoint with transformers: fp32, eager attention, the model parity is held to."""
    import torch

    _, auto_model = quiet_transformers()
    model = auto_model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object file; a value of `...` removes the key."""
    data = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            data.pop(key, None)
        else:
            data[key] = value
    path.write_text(json.dumps(data, indent=2))


def write_tokenizer(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> None:
    """Write a byte-level BPE tokenizer: ids 0-2 special, 3-258 bytes, then a few merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([_CORPUS], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 128,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
