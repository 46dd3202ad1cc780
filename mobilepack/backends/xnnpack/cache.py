"""How keys and values lie in the cache, and in which form attention wants its operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.values import Element

Role = Literal["query", "key", "value"]

BLOCK = 64
"""Tokens of a cache block. 64 was the best of 64, 128 and 256 at short and long lengths."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides an attention's graph.

    Attributes:
        window: Sliding window in tokens; 0 for full attention.
        softcap: Scores become `softcap * tanh(score / softcap)`; 0 leaves them.
        biased: Whether linear biases are added to the scores.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int
    softcap: float = 0.0
    biased: bool = False


@dataclass(frozen=True, slots=True)
class Operand:
    """A query, key or value on its way to an attention."""

    role: Role
    attention: Shape

    @property
    def heads(self) -> int:
        """Heads of this operand."""
        return self.attention.heads if self.role == "query" else self.attention.kv_heads


class CacheFormat(Protocol):
    """Form of attention's operands outside the delegates."""

    @property
    def rotated_fits(self) -> bool:
        """Whether what a rotation yields, `[1, seq, heads, head_dim]` float32, is that form."""

    def tensor(self, operand: Operand, sequence: int) -> tuple[tuple[int, ...], Element]:
        """Return bound and element type of an operand."""

    def deliver(self, graph: Graph, value: int, operand: Operand, out: int) -> None:
        """Bring `[1, seq, channels]` or `[1, seq, heads, head_dim]` into that form."""


class Flat:
    """float32 `[1, max_seq_len, kv_heads, head_dim]`: one row per token."""

    @property
    def rotated_fits(self) -> bool:
        return True

    def tensor(self, operand: Operand, sequence: int) -> tuple[tuple[int, ...], Element]:
        return (1, sequence, operand.heads, operand.attention.head_dim), "float32"

    def deliver(self, graph: Graph, value: int, operand: Operand, out: int) -> None:
        graph.reshape(value, [1, 0, operand.heads, operand.attention.head_dim], [], out)


@dataclass(frozen=True, slots=True)
class Blocks:
    """`[max_seq_len / 64, kv_heads, 64, head_dim]`: the used part is contiguous at any length.

    A batched matrix product wants heads outermost and tokens next; with whole blocks of tokens it
    gets that without a copy. A token's rows are scattered by `llama::update_cache_with_indices`.
    Half precision halves what each step reads, and XNNPACK repacks.

    Attributes:
        key: Element type of queries and keys in products. float32 where keys have a bias: such
            models (Qwen2) are known for products that overflow half precision.
        int8: Keys and values are stored as int8 with one float32 scale per token and head, their
            largest magnitude; `attention_int8.py`.
    """

    key: Element
    int8: bool = False

    @property
    def rotated_fits(self) -> bool:
        return False

    def element(self, role: Role) -> Element:
        """Return the element type of an operand; queries are multiplied with keys."""
        if self.int8 and role != "query":
            return "float32"
        return "float16" if role == "value" else self.key

    def tensor(self, operand: Operand, sequence: int) -> tuple[tuple[int, ...], Element]:
        element, dim = self.element(operand.role), operand.attention.head_dim
        if operand.role == "query":
            return (1, sequence, operand.heads, dim), element
        return (1, sequence * operand.heads, 1, dim), element

    def deliver(self, graph: Graph, value: int, operand: Operand, out: int) -> None:
        heads, dim = operand.heads, operand.attention.head_dim
        sequence = graph.shape(value)[1]
        element = self.element(operand.role)
        if operand.role == "query":
            value = graph.scaled(value, operand.attention.scale)
            dims, bound = [1, 0, heads, dim], [1, sequence, heads, dim]
        else:
            dims, bound = [1, 0, 1, dim], [1, sequence * heads, 1, dim]
        if element == "float32":
            graph.reshape(value, dims, bound, out)
            return
        if graph.shape(value) != tuple(bound):
            value = graph.reshape(value, dims, bound)
        graph.convert(value, element, out)
