"""The decoder's growing form: keys and values are inputs that come back longer, as ONNX has it.

The same blocks and parameters as the dynamic form (`decoder.py`), other large steps
(`operators_growing.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from mobilepack.models.decoder import Decoder
from mobilepack.models.operators_growing import GROWING, GrowingCall
from mobilepack.models.spec import DecoderSpec


@dataclass(frozen=True, slots=True)
class _Past:
    k_cache: torch.Tensor
    v_cache: torch.Tensor


class GrowingDecoder(Decoder):
    """A decoder for calls of any length after any number of tokens."""

    def __init__(self, spec: DecoderSpec, max_seq_len: int) -> None:
        """Create the modules on the current default device; see `Decoder`.

        Args:
            spec: A model whose blocks are attention and feed-forward (`DecoderSpec.is_plain`).
            max_seq_len: Positions that the position tables hold.
        """
        super().__init__(spec, max_seq_len, GROWING)
        self.caches = nn.ModuleList()

    def forward(  # type: ignore[override]
        self, tokens: torch.Tensor, positions: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Return the last token's logits and the keys and values of all tokens so far.

        Args:
            tokens: int64 [1, S].
            positions: int64 [1, S], the first is how many tokens came before.
            past: Keys and values of each layer, float32 [1, kv_heads, P, head_dim], P >= 0.

        Returns:
            Logits float32 [1, 1, vocab], then keys and values [1, kv_heads, P + S, head_dim].
        """
        call = GrowingCall(positions.view(-1))
        x = self._embedded(tokens.view(-1), call)
        for index, layer in enumerate(self.spec.layers):
            block = self.layers[str(index if layer.shares is None else layer.shares)]
            state = cast(nn.Module, _Past(*past[2 * index : 2 * index + 2]))
            x = block(x, state, self.tables, call, index == len(self.spec.layers) - 1)
        logits = self._logits(x).unsqueeze(0)
        made = zip(call.keys, call.values, strict=True)
        return (logits, *(tensor for pair in made for tensor in pair))


def past_shapes(spec: DecoderSpec, length: int) -> list[tuple[int, int, int, int]]:
    """Return the shapes of keys and values of `length` tokens, layer by layer."""
    kinds = cast(Any, spec.attentions)
    return [(1, kind.n_kv_heads, length, kind.head_dim) for kind in kinds for _ in "kv"]


def growing(spec: DecoderSpec, max_seq_len: int) -> GrowingDecoder:
    """Return the growing form on the meta device: shapes and names, no memory."""
    if not spec.is_plain:
        raise ValueError("the growing form has attention and feed-forward only")
    with torch.device("meta"):
        return GrowingDecoder(spec, max_seq_len).eval()
