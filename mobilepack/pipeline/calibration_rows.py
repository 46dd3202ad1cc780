"""The text that calibration and pruning look at, as token ids."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from mobilepack.errors import UsageError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo.corpus import Document
from mobilepack.pipeline.compression_options import calibration_text, corpus_documents

ROWS, ROW_TOKENS = 32, 512
"""Of the calibration text: 16,384 tokens. On the embedded model, whose widest map has 704 inputs,
twice as many change the perplexity by less than its noise."""


def text_rows(folder: Path, file: Path | None, max_seq_len: int) -> tuple[tuple[int, ...], ...]:
    """Return the calibration text's token ids in rows.

    Raises:
        UsageError: The text is shorter than one row.
    """
    tokenizer, template = Tokenizer.open(folder), ChatTemplate.open(folder)
    documents = corpus_documents() if file is None else (calibration_text(file),)
    ids = tuple(chain.from_iterable(_ids(part, tokenizer, template) for part in documents))
    length = min(ROW_TOKENS, max_seq_len)
    rows = tuple(
        ids[at : at + length] for at in range(0, min(len(ids), ROWS * length) - length + 1, length)
    )
    if not rows:
        raise UsageError(
            "text-too-short",
            "cannot calibrate on so little text",
            why=f"it has {len(ids)} tokens; {length} at least are needed",
            next=f"give a text of about {ROWS * length:,} tokens with --calib",
        )
    return rows


def _ids(document: Document, tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    """Return a text between bos and eos, or a chat as the template writes it."""
    if isinstance(document, str):
        bos = None if tokenizer.bos_id is None else True
        return [*tokenizer.encode(document, add_bos=bos), *tokenizer.eos_ids[:1]]
    turns = [ChatMessage(turn.role, turn.content) for turn in document]
    text = template.render(turns, add_generation_prompt=False)
    return tokenizer.encode(text, add_bos=None if template.plain else False)
