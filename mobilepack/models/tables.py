"""Constants that the decoder reads beside its weights: rotary angles and linear biases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mobilepack.models.alibi import alibi_table
from mobilepack.models.rope import rope_tables
from mobilepack.models.spec import DecoderSpec

if TYPE_CHECKING:
    import torch

TABLES = "tables."
"""How the names of all tables begin."""

ALIBI = f"{TABLES}alibi_"
"""How the names of tables of linear biases begin."""

_WHOLE = 64  # tokens: attention over a cache in blocks reads whole blocks of so many


def table_shapes(spec: DecoderSpec, max_seq_len: int) -> dict[str, tuple[int, int]]:
    """Return name and shape of every table: angles `[max_seq_len, dim / 2]`, biases `[heads, n]`.

    n is the next multiple of 64 tokens.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for index, rope in enumerate(spec.ropes):
        for name in ("cos", "sin"):
            shapes[f"{TABLES}{name}_{index}"] = (max_seq_len, rope.dim // 2)
    for index, (_, heads) in enumerate(spec.alibis):
        shapes[f"{ALIBI}{index}"] = (heads, _whole(max_seq_len))
    return shapes


def make_tables(spec: DecoderSpec, max_seq_len: int) -> dict[str, torch.Tensor]:
    """Return every table in float32, by the name of the decoder's buffer."""
    return dict(_tables(spec, max_seq_len))


def _tables(spec: DecoderSpec, max_seq_len: int) -> Iterator[tuple[str, torch.Tensor]]:
    for index, rope in enumerate(spec.ropes):
        cos, sin = rope_tables(rope, max_seq_len)
        yield f"{TABLES}cos_{index}", cos
        yield f"{TABLES}sin_{index}", sin
    for index, (alibi, heads) in enumerate(spec.alibis):
        yield f"{ALIBI}{index}", alibi_table(alibi, heads, _whole(max_seq_len))


def _whole(max_seq_len: int) -> int:
    return -(-max_seq_len // _WHOLE) * _WHOLE
