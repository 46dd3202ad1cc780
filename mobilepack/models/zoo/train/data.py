"""From documents to rows of token ids: the tokenizer, the chat format and the packing."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from mobilepack.models.zoo.corpus import Document, MixName, train_documents

PAD, BOS, END, SYSTEM, USER, ASSISTANT = range(6)
SPECIAL: Final = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_ROLES: Final = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
# Qwen2's split (every digit alone): runtimes for phones already know it.
_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What a user says is mostly chance; learning to predict it would waste the few tokens there are.
_USER_WEIGHT: Final = 0.2


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows of one length: tokens int16 and weights float16, both [rows, length + 1]."""

    tokens: Tensor
    weights: Tensor


def train_tokenizer(seed: int, documents: int, vocab_size: int) -> Tokenizer:
    """Train the byte-level BPE tokenizer on the first documents of the training stream."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = islice(train_documents(seed), documents)
    tokenizer.train_from_iterator((part for d in sample for part in _parts(d)), trainer)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{SPECIAL[BOS]} $A",
        pair=f"{SPECIAL[BOS]} $A $B",
        special_tokens=[(SPECIAL[BOS], BOS)],
    )
    return tokenizer


def _parts(document: Document) -> tuple[str, ...]:
    return (document,) if isinstance(document, str) else tuple(m.content for m in document)


def encode(tokenizer: Tokenizer, document: Document) -> tuple[list[int], list[float]]:
    """Return a document's token ids, from ``<|bos|>`` to ``<|end|>``, and their weights."""
    ids, weights = [BOS], [0.0]
    if isinstance(document, str):
        text = tokenizer.encode(document, add_special_tokens=False).ids
        return [BOS, *text, END], [0.0] + [1.0] * (len(text) + 1)
    for message in document:
        text = [*tokenizer.encode(message.content, add_special_tokens=False).ids, END]
        ids += [_ROLES[message.role], *text]
        weights += [0.0] + [1.0 if message.role == "assistant" else _USER_WEIGHT] * len(text)
    return ids, weights


def _pack(
    stream: Iterator[tuple[list[int], list[float]]], length: int
) -> tuple[list[int], list[float]]:
    """Fill one row with whole documents; the last is cut at the row's end and its rest dropped.

    So every row starts with a document's start, as every prompt does.
    """
    tokens: list[int] = []
    weights: list[float] = []
    while len(tokens) < length:
        ids, counts = next(stream)
        tokens += ids
        weights += counts
    return tokens[:length], weights[:length]


def make_rows(stream: Iterator[tuple[list[int], list[float]]], rows: int, length: int) -> Rows:
    """Pack that many rows of ``length`` inputs (and one token more, the last target)."""
    tokens = torch.zeros(rows, length + 1, dtype=torch.int16)
    weights = torch.zeros(rows, length + 1, dtype=torch.float16)
    for row in range(rows):
        ids, counts = _pack(stream, length + 1)
        tokens[row] = torch.tensor(ids, dtype=torch.int16)
        weights[row] = torch.tensor(counts, dtype=torch.float16)
    return Rows(tokens, weights)


def token_stream(
    tokenizer: Tokenizer, seed: int, mix: MixName
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield encoded training documents without end."""
    for document in train_documents(seed, mix):
        yield encode(tokenizer, document)
