"""The decoder's large steps behind one interface: composite operators, or ExecuTorch's own.

Composite operators stay whole in an exported graph, for backends that lower them themselves. The
plain ones are primitive torch with `llama::update_cache` and `llama::custom_sdpa`, which is what
ExecuTorch's own lowering expects; they say the same thing a second time, in another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import nn

from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.spec import Activation

GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, section 2

_ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": nn.functional.silu,
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}

Position = torch.Tensor | int
"""Where a call starts: the `input_pos` tensor, or (plain) the number in it."""


class Operators(Protocol):
    """The large steps; shapes and meaning are those of `models/ops.py`."""

    def position(self, input_pos: torch.Tensor, length: int, limit: int) -> Position:
        """Return the start position in the form that the other steps take."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """See `ops.rms_norm`."""

    def head_norm(
        self, x: torch.Tensor, weight: torch.Tensor, heads: int, eps: float
    ) -> torch.Tensor:
        """See `ops.head_norm`."""

    def rope(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        position: Position,
        heads: int,
    ) -> torch.Tensor:
        """See `ops.rope`."""

    def attention(  # noqa: PLR0913  see ops.attention
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        position: Position,
        scale: float,
        window: int,
    ) -> torch.Tensor:
        """See `ops.attention`."""

    def last_token(self, x: torch.Tensor) -> torch.Tensor:
        """See `ops.last_token`."""

    def activation(self, x: torch.Tensor, kind: Activation) -> torch.Tensor:
        """Apply the feed-forward's activation."""


class _Composite:
    """Each step is one operator of ours."""

    def __init__(self) -> None:
        ours = torch.ops.mobilepack
        self.rms_norm = ours.rms_norm
        self.head_norm = ours.head_norm
        self.rope = ours.rope
        self.attention = ours.attention
        self.last_token = ours.last_token

    @staticmethod
    def position(input_pos: torch.Tensor, length: int, limit: int) -> Position:
        return input_pos

    @staticmethod
    def activation(x: torch.Tensor, kind: Activation) -> torch.Tensor:
        if kind == "gelu_tanh":
            return nn.functional.gelu(x, approximate="tanh")
        return _ACTIVATIONS[kind](x)


class _Plain:
    """Each step in primitive torch and ExecuTorch's LLM kernels.

    `executorch.extension.llm.custom_ops.custom_ops` must have been imported.
    """

    @staticmethod
    def position(input_pos: torch.Tensor, length: int, limit: int) -> Position:
        start = cast(int, input_pos[0].item())  # int() would fix it to the example's value
        torch._check(start >= 0)
        torch._check(start < limit)
        torch._check(start + length <= limit)
        return start

    @staticmethod
    def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight

    def head_norm(
        self, x: torch.Tensor, weight: torch.Tensor, heads: int, eps: float
    ) -> torch.Tensor:
        return self.rms_norm(_heads(x, heads), weight, eps).flatten(2)

    @staticmethod
    def rope(
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        position: Position,
        heads: int,
    ) -> torch.Tensor:
        start, length, half = cast(int, position), x.shape[1], cos.shape[1]
        c, s = (table.narrow(0, start, length).unsqueeze(1) for table in (cos, sin))
        split = _heads(x, heads)
        a, b, rest = split[..., :half], split[..., half : 2 * half], split[..., 2 * half :]
        parts = [a * c - b * s, b * c + a * s, *([rest] if rest.shape[-1] else [])]
        return torch.cat(parts, -1).flatten(2)

    @staticmethod
    def attention(  # noqa: PLR0913  see ops.attention
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        position: Position,
        scale: float,
        window: int,
    ) -> torch.Tensor:
        start, kv_heads = cast(int, position), k_cache.shape[2]
        heads = q.shape[-1] // k_cache.shape[3]
        q, k, v = _heads(q, heads), _heads(k, kv_heads), _heads(v, kv_heads)
        torch.ops.llama.update_cache(k, k_cache, start)
        torch.ops.llama.update_cache(v, v_cache, start)
        if window == 0:
            mixed: torch.Tensor = torch.ops.llama.custom_sdpa(
                q, k_cache, v_cache, start, None, 0.0, True, scale
            )
            return mixed.flatten(2)
        length, limit = q.shape[1], k_cache.shape[1]
        rows = torch.arange(limit, dtype=torch.float32).narrow(0, start, length).unsqueeze(1)
        columns = torch.arange(limit, dtype=torch.float32)
        hidden = (columns > rows) | (columns <= rows - window)
        mask = torch.zeros(length, limit).masked_fill(hidden, -1e9)
        queries: torch.Tensor = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4)
        keys, values = (c.permute(0, 2, 1, 3).unsqueeze(2) for c in (k_cache, v_cache))
        weights = (queries * scale @ keys.transpose(-1, -2) + mask).softmax(-1)
        return (weights @ values).permute(0, 3, 1, 2, 4).flatten(2)

    @staticmethod
    def last_token(x: torch.Tensor) -> torch.Tensor:
        return x[:, -1]

    @staticmethod
    def activation(x: torch.Tensor, kind: Activation) -> torch.Tensor:
        if kind == "gelu_tanh":
            # written out: XNNPACK's partitioner (1.5.1) lowers the tanh form as the erf form
            inner = math.sqrt(2 / math.pi) * (x + GELU_CUBIC * x * x * x)
            return 0.5 * x * (1 + torch.tanh(inner))
        return _ACTIVATIONS[kind](x)


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    split: torch.Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads))
    return split


COMPOSITE: Operators = _Composite()
PLAIN: Operators = _Plain()
