"""The decoder's large steps for NPUs: fixed shapes, no memory, primitive torch.

Activations are float32 `[1, 1, T, channels]` between the steps and `[1, T, heads, head_dim]` inside
an attention; keys are cached transposed, so that scores are one product without a transposition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import torch

from mobilepack.models.layer_spec import Activation
from mobilepack.models.operators import (
    ACTIVATIONS,
    GELU_CUBIC,
    Operators,
    OptionalTensor,
    Position,
    Tensor,
)

Heads = Literal["together", "split"]
"""Whether all heads are one product, or each group that shares keys is one of its own."""


@dataclass(slots=True)
class StaticCall:
    """What one call of the static form is given and makes.

    Attributes:
        positions: int32 [T].
        masks: By window (0: full attention), float32 [1, 1, T, past + T], added to the scores.
        heads: How attention is written.
        keys: Of the T tokens, float32 [1, kv_heads, head_dim, T] per layer, as they are made.
        values: Likewise, [1, kv_heads, T, head_dim].
        kept: Steps that many layers need, made once.
    """

    positions: Tensor
    masks: Mapping[int, Tensor]
    heads: Heads
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """T."""
        return self.positions.shape[0]

    def once(self, name: str, key: int, make: Callable[[], Tensor]) -> Tensor:
        """Return what an earlier layer made, or make it."""
        if (name, key) not in self.kept:
            self.kept[name, key] = make()
        return self.kept[name, key]

    def rows(self, table: Tensor) -> Tensor:
        """Return a table's rows at the positions, [T, columns]."""
        return self.once("rows", id(table), lambda: table[self.positions])

    def mask(self, window: int, groups: int) -> Tensor:
        """Return a mask for scores [1, kv_heads, groups * T, past + T]."""
        mask = self.masks[window]
        if groups == 1:
            return mask
        key = window * 4096 + groups
        return self.once("mask", key, lambda: torch.cat([mask] * groups, 2))


class _Static:
    @staticmethod
    def position(input_pos: Tensor, length: int, limit: int) -> Position:
        raise NotImplementedError("a call of the static form brings its own position")

    @staticmethod
    def rms_norm(x: Tensor, weight: OptionalTensor, eps: float) -> Tensor:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)

    @staticmethod
    def layer_norm(x: Tensor, weight: OptionalTensor, bias: OptionalTensor, eps: float) -> Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def head_norm(
        self,
        x: Tensor,
        weight: OptionalTensor,
        bias: OptionalTensor,
        groups: int,
        eps: float,
        centred: bool,
    ) -> Tensor:
        split = x if groups == 1 else _split(x, groups, x.shape[2])
        shared = weight is None or weight.shape[0] == split.shape[-1]
        if shared and not centred:
            return self.rms_norm(split, weight, eps)
        if shared:
            return self.layer_norm(split, weight, bias, eps)
        norm = (
            self.layer_norm(split, None, None, eps) if centred else self.rms_norm(split, None, eps)
        )
        normed = norm * cast(Tensor, weight).view(groups, -1)
        return normed if bias is None else normed + bias.view(groups, -1)

    @staticmethod
    def rope(
        x: Tensor, cos: Tensor, sin: Tensor, position: Position, heads: int, interleaved: bool
    ) -> Tensor:
        call = cast(StaticCall, position)
        split, half = _split(x, heads, call.length), cos.shape[1]
        c, s = (call.rows(table).view(1, -1, 1, half) for table in (cos, sin))
        partly = split.shape[-1] > 2 * half
        pairs = split[..., : 2 * half] if partly else split
        if interleaved:
            a, b = pairs[..., ::2], pairs[..., 1::2]
            turned = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
        else:
            a, b = pairs[..., :half], pairs[..., half:]
            turned = torch.cat([a * c - b * s, b * c + a * s], -1)
        return torch.cat([turned, split[..., 2 * half :]], -1) if partly else turned

    @staticmethod
    def positions(x: Tensor, table: Tensor, position: Position, offset: int) -> Tensor:
        at = cast(StaticCall, position).positions
        rows = table[at + offset if offset else at]
        return rows.view(1, 1, *rows.shape)

    @staticmethod
    def attention(  # noqa: PLR0913  see ops.attention; caches are as `StaticCall` says
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
        call, kv_heads = cast(StaticCall, position), k_cache.shape[1]
        heads = q.numel() // (call.length * k_cache.shape[2])
        q = _split(q, heads, call.length).permute(0, 2, 1, 3)
        keys = _split(k, kv_heads, call.length).permute(0, 2, 3, 1)
        values = _split(v, kv_heads, call.length).permute(0, 2, 1, 3)
        call.keys.append(keys)
        call.values.append(values)
        whole = (torch.cat([k_cache, keys], -1), torch.cat([v_cache, values], 2))
        groups = heads // kv_heads
        q = (q * scale).reshape(1, kv_heads, groups * call.length, -1)
        bias = None if alibi is None else _biases(call, alibi, k_cache.shape[3], groups)
        mask = call.mask(window, groups)
        if call.heads == "together":
            mixed = _mixed(q, *whole, mask, softcap, bias)
        else:
            biases = [None] * kv_heads if bias is None else bias.split(1, 1)
            parts = zip(q.split(1, 1), *(t.split(1, 1) for t in whole), biases, strict=True)
            one = [_mixed(a, b, c, mask, softcap, d) for a, b, c, d in parts]
            mixed = torch.cat(one, 1) if kv_heads > 1 else one[0]
        by_token = mixed.reshape(1, heads, call.length, -1).permute(0, 2, 1, 3)
        return by_token.reshape(1, 1, call.length, -1)

    @staticmethod
    def last_token(x: Tensor) -> Tensor:
        return x  # taken before the head, see `StaticDecoder`

    @staticmethod
    def activation(x: Tensor, kind: Activation) -> Tensor:
        if kind == "gelu_tanh":
            # x * sigmoid(2 z) is x/2 * (1 + tanh(z)); QNN's own operator is the erf form
            inner = (2 * math.sqrt(2 / math.pi)) * (x + GELU_CUBIC * x * x * x)
            return x * torch.sigmoid(inner)
        return ACTIVATIONS[kind](x)


def _split(x: Tensor, heads: int, length: int) -> Tensor:
    """Return `[1, 1, T, channels]` as `[1, T, heads, head_dim]`; what is so already stays."""
    whole = x.shape[1] == 1 and x.shape[2] == length
    return x.reshape(1, length, heads, -1) if whole else x


def _biases(call: StaticCall, alibi: Tensor, past: int, groups: int) -> Tensor:
    """Return linear biases for scores, [1, kv_heads, groups * T, past + T]."""

    def make() -> Tensor:
        new = alibi.transpose(0, 1)[call.positions].transpose(0, 1)
        row = torch.cat([alibi[:, :past], new], 1)  # [heads, past + T]
        each = torch.stack([row] * call.length, 1)  # [heads, T, past + T]
        return each.reshape(1, alibi.shape[0] // groups, groups * call.length, -1)

    return call.once("alibi", id(alibi), make)


def _mixed(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, softcap: float, bias: OptionalTensor
) -> Tensor:
    """Return what queries [1, n, rows, d] gather from keys [1, n, d, c], values [1, n, c, d]."""
    scores = torch.matmul(q, keys)
    if softcap:
        scores = torch.tanh(scores * (1 / softcap)) * softcap
    if bias is not None:
        scores = scores + bias
    return torch.matmul(torch.softmax(scores + mask, -1), values)


STATIC: Operators = _Static()
