"""The decoder's large steps where keys and values grow with the sequence: primitive torch.

Activations are float32 `[seq, channels]`: every linear map is then a product of two matrices, which
ONNX writes as one `Gemm` on the weights as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch

from mobilepack.models.layer_spec import Activation
from mobilepack.models.operators import (
    ACTIVATIONS,
    Operators,
    OptionalTensor,
    Position,
    Tensor,
)
from mobilepack.models.operators_primitive import HIDDEN, Primitive, by_heads, turned


@dataclass(slots=True)
class GrowingCall:
    """What one call of the growing form is given and makes.

    Attributes:
        positions: int64 [S].
        keys: Of all tokens so far, float32 [1, kv_heads, past + S, head_dim] per layer, as made.
        values: Likewise.
        kept: Steps that many layers need, made once.
    """

    positions: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def once(self, name: str, key: int, make: Callable[[], Tensor]) -> Tensor:
        """Return what an earlier layer made, or make it."""
        if (name, key) not in self.kept:
            self.kept[name, key] = make()
        return self.kept[name, key]

    def rows(self, table: Tensor) -> Tensor:
        """Return a table's rows at the positions, [S, 1, columns]."""
        return self.once(
            "rows", id(table), lambda: table.index_select(0, self.positions).unsqueeze(1)
        )

    def mask(self, window: int, total: int) -> Tensor:
        """Return what is added to scores, [S, past + S]: 0 where a query may look."""

        def make() -> Tensor:
            columns, rows = torch.arange(total).unsqueeze(0), self.positions.unsqueeze(1)
            seen = columns <= rows
            if window:
                seen = seen & (columns > rows - window)
            return torch.where(seen, 0.0, HIDDEN)

        return self.once("mask", window, make)


class _Growing(Primitive):
    @staticmethod
    def position(input_pos: Tensor, length: int, limit: int) -> Position:
        raise NotImplementedError("a call of the growing form brings its own position")

    @staticmethod
    def layer_norm(x: Tensor, weight: OptionalTensor, bias: OptionalTensor, eps: float) -> Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    @staticmethod
    def rope(
        x: Tensor, cos: Tensor, sin: Tensor, position: Position, heads: int, interleaved: bool
    ) -> Tensor:
        call = cast(GrowingCall, position)
        return turned(x, call.rows(cos), call.rows(sin), heads, interleaved)

    @staticmethod
    def positions(x: Tensor, table: Tensor, position: Position, offset: int) -> Tensor:
        return table.index_select(0, cast(GrowingCall, position).positions + offset)

    @staticmethod
    def attention(  # noqa: PLR0913  see ops.attention; caches are as `GrowingCall` says
        q: Tensor,
        k: Tensor,
        v: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        position: Position,
        scale: float,
        window: int,
        softcap: float,
        alibi: OptionalTensor,
    ) -> Tensor:
        call, (kv_heads, head_dim) = cast(GrowingCall, position), k_cache.shape[1::2]
        keys = torch.cat([k_cache, _by_head(k, kv_heads).unsqueeze(0)], 2)
        values = torch.cat([v_cache, _by_head(v, kv_heads).unsqueeze(0)], 2)
        call.keys.append(keys)
        call.values.append(values)
        heads, total = q.shape[-1] // head_dim, keys.shape[2]
        length = call.positions.shape[0]
        rows = heads // kv_heads * length
        queries = _by_head(q, heads).view(kv_heads, rows, head_dim)
        scores = torch.matmul(queries * scale, keys[0].transpose(1, 2))
        if softcap:
            scores = torch.tanh(scores * (1 / softcap)) * softcap
        scores = scores.view(heads, length, total) + call.mask(window, total)
        if alibi is not None:
            scores = scores + alibi[:, :total].unsqueeze(1)
        weights = scores.softmax(-1).view(kv_heads, rows, total)
        mixed = torch.matmul(weights, values[0]).view(heads, length, head_dim)
        return mixed.transpose(0, 1).contiguous().view(length, heads * head_dim)

    @staticmethod
    def last_token(x: Tensor) -> Tensor:
        return x[-1:]

    @staticmethod
    def activation(x: Tensor, kind: Activation) -> Tensor:
        if kind == "gelu_tanh":
            return torch.nn.functional.gelu(x, approximate="tanh")
        return ACTIVATIONS[kind](x)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Return `[seq, channels]` as `[heads, seq, head_dim]`.

    Contiguous, or export guards on how the strides compare, which fixes the length.
    """
    return by_heads(x, heads).transpose(0, 1).contiguous()


GROWING: Operators = _Growing()
"""The decoder's large steps with keys and values that the caller hands back at every call."""
