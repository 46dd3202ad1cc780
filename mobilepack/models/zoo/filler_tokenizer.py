"""Write a byte-level tokenizer of any vocabulary size, with no merges."""

from __future__ import annotations

import json
from pathlib import Path

BOS_TEXT = "<|bos|>"
EOS_TEXT = "<|eos|>"
_SPACE = "\u0120"  # how GPT-2's byte alphabet writes a blank


def byte_alphabet() -> dict[int, str]:
    """Map every byte to a printable character, as GPT-2 does.

    Source: openai/gpt-2, src/encoder.py, `bytes_to_unicode`: printable bytes stand
    for themselves, the others are moved to U+0100 and above, in order.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in sorted(printable)} | {
        byte: chr(256 + index) for index, byte in enumerate(moved)
    }


def vocabulary(size: int, special: dict[int, str]) -> dict[str, int]:
    """Fill `size` ids: the special ones, then all bytes, then made-up words."""
    alphabet = byte_alphabet()
    letters = iter(alphabet[byte] for byte in range(256))
    words: dict[str, int] = {}
    for token_id in range(size):
        text = special.get(token_id) or next(letters, None) or f"{_SPACE}t{token_id}"
        words[text] = token_id
    return words


def write_filler_tokenizer(
    vocab_size: int, bos_id: int, eos_id: int, max_length: int, folder: Path
) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; bos and eos may be one token."""
    special = {bos_id: BOS_TEXT, eos_id: EOS_TEXT}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    document: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(i, special[i]) for i in sorted(special)],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"add_prefix_space": False},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary(vocab_size, special),
            "merges": [],
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[bos_id],
        "eos_token": EOS_TEXT,
        "model_max_length": max_length,
    }
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _added_token(token_id: int, text: str) -> dict[str, object]:
    return {
        "id": token_id,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
