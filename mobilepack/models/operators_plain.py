"""The decoder's large steps in primitive torch and ExecuTorch's LLM kernels."""

from __future__ import annotations

import math
from typing import cast

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
from mobilepack.models.operators_primitive import HIDDEN, Primitive, by_heads, turned


class _Plain(Primitive):
    """`executorch.extension.llm.custom_ops.custom_ops` must have been imported."""

    @staticmethod
    def position(input_pos: Tensor, length: int, limit: int) -> Position:
        start = cast(int, input_pos[0].item())  # int() would fix it to the example's value
        torch._check(start >= 0)
        torch._check(start < limit)
        torch._check(start + length <= limit)
        return start

    @staticmethod
    def rope(
        x: Tensor, cos: Tensor, sin: Tensor, position: Position, heads: int, interleaved: bool
    ) -> Tensor:
        c, s = (
            table.narrow(0, cast(int, position), x.shape[1]).unsqueeze(1) for table in (cos, sin)
        )
        return turned(x, c, s, heads, interleaved)

    @staticmethod
    def positions(x: Tensor, table: Tensor, position: Position, offset: int) -> Tensor:
        start = cast(int, position) + offset
        torch._check(start + x.shape[1] <= table.shape[0])
        return table.narrow(0, start, x.shape[1]).unsqueeze(0)

    @staticmethod
    def attention(  # noqa: PLR0913  see ops.attention
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
        start, kv_heads = cast(int, position), k_cache.shape[2]
        heads = q.shape[-1] // k_cache.shape[3]
        q, k, v = by_heads(q, heads), by_heads(k, kv_heads), by_heads(v, kv_heads)
        torch.ops.llama.update_cache(k, k_cache, start)
        torch.ops.llama.update_cache(v, v_cache, start)
        if not (window or softcap or alibi is not None):
            mixed: Tensor = torch.ops.llama.custom_sdpa(
                q, k_cache, v_cache, start, None, 0.0, True, scale
            )
            return mixed.flatten(2)
        queries: Tensor = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4)
        keys, values = (c.permute(0, 2, 1, 3).unsqueeze(2) for c in (k_cache, v_cache))
        scores = queries * scale @ keys.transpose(-1, -2)
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        if alibi is not None:
            biases = alibi[:, : k_cache.shape[1]]
            scores = scores + biases.unflatten(0, (kv_heads, -1)).unsqueeze(2)
        weights = (scores + _mask(start, q.shape[1], k_cache.shape[1], window)).softmax(-1)
        return (weights @ values).permute(0, 3, 1, 2, 4).flatten(2)

    @staticmethod
    def last_token(x: Tensor) -> Tensor:
        return x[:, -1]

    @staticmethod
    def activation(x: Tensor, kind: Activation) -> Tensor:
        if kind == "gelu_tanh":
            # written out: XNNPACK's partitioner (1.5.1) lowers the tanh form as the erf form
            inner = math.sqrt(2 / math.pi) * (x + GELU_CUBIC * x * x * x)
            return 0.5 * x * (1 + torch.tanh(inner))
        return ACTIVATIONS[kind](x)


def _mask(start: int, length: int, limit: int, window: int) -> Tensor:
    """Return the additive mask over the whole cache, `[length, limit]`."""
    rows = torch.arange(limit, dtype=torch.float32).narrow(0, start, length).unsqueeze(1)
    columns = torch.arange(limit, dtype=torch.float32)
    hidden = columns > rows
    if window:
        hidden = hidden | (columns <= rows - window)
    return torch.zeros(length, limit).masked_fill(hidden, HIDDEN)


PLAIN: Operators = _Plain()
