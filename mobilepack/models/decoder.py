"""The one decoder, in its dynamic form: any sequence length, KV cache in mutable buffers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mobilepack.models.operators import COMPOSITE, Operators, Position
from mobilepack.models.rope import rope_tables
from mobilepack.models.spec import DecoderSpec, LayerSpec


class Norm(nn.Module):
    """A norm's weight, `[channels]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = _parameter(channels)


class Linear(nn.Module):
    """A linear map without torch's random initialisation, which costs seconds on big models."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(outputs, inputs)
        self.bias = _parameter(outputs) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., inputs]` to `[..., outputs]`."""
        return nn.functional.linear(x, self.weight, self.bias)


class Embedding(nn.Module):
    """A table of token vectors, `[vocab, hidden]`."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.weight = _parameter(rows, channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map ids `[1, seq]` to vectors `[1, seq, hidden]`."""
        return nn.functional.embedding(tokens, self.weight)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape), requires_grad=False)


class Layer(nn.Module):
    """One decoder block: attention, then gated feed-forward, each behind a norm and a residual."""

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(
        self, spec: LayerSpec, model: DecoderSpec, max_seq_len: int, ops: Operators
    ) -> None:
        super().__init__()
        self.spec = spec
        self.ops = ops
        self.eps = model.norm_eps
        self.activation = model.activation
        hidden = model.hidden_size
        self.attn_norm = Norm(hidden)
        self.q = Linear(hidden, spec.q_size, bias=spec.qkv_bias)
        self.k = Linear(hidden, spec.kv_size, bias=spec.qkv_bias)
        self.v = Linear(hidden, spec.kv_size, bias=spec.qkv_bias)
        self.q_norm = Norm(spec.head_dim) if spec.qk_norm else None
        self.k_norm = Norm(spec.head_dim) if spec.qk_norm else None
        self.o = Linear(spec.q_size, hidden, bias=spec.o_bias)
        self.mlp_norm = Norm(hidden)
        self.gate = Linear(hidden, spec.ffn_size, bias=spec.mlp_bias)
        self.up = Linear(hidden, spec.ffn_size, bias=spec.mlp_bias)
        self.down = Linear(spec.ffn_size, hidden, bias=spec.mlp_bias)
        for name in ("k_cache", "v_cache"):
            cache = torch.zeros(1, max_seq_len, spec.n_kv_heads, spec.head_dim)
            self.register_buffer(name, cache, persistent=False)

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        position: Position,
        last: bool = False,
    ) -> torch.Tensor:
        """Map `[1, seq, hidden]` to the same shape, reading and writing this layer's cache.

        With `last`, only the last token is carried on after the cache is written, `[1, hidden]`:
        nobody reads the others, and in prefill they cost most of the last layer's time.
        """
        h = self.ops.rms_norm(x, self.attn_norm.weight, self.eps)
        attended = self._attend(h, cos, sin, position)
        if last:
            attended = self.ops.last_token(attended)
            x = self.ops.last_token(x)
        x = x + self.o(attended)
        h = self.ops.rms_norm(x, self.mlp_norm.weight, self.eps)
        gated = self.ops.activation(self.gate(h), self.activation)
        mixed: torch.Tensor = self.down(gated * self.up(h))
        return x + mixed

    def _attend(
        self, h: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, position: Position
    ) -> torch.Tensor:
        spec = self.spec
        q, k, v = self.q(h), self.k(h), self.v(h)
        if self.q_norm is not None and self.k_norm is not None:
            head_norm = self.ops.head_norm
            q = head_norm(q, self.q_norm.weight, spec.n_heads, self.eps)
            k = head_norm(k, self.k_norm.weight, spec.n_kv_heads, self.eps)
        if spec.rotary:
            q = self.ops.rope(q, cos, sin, position, spec.n_heads)
            k = self.ops.rope(k, cos, sin, position, spec.n_kv_heads)
        return self.ops.attention(
            q, k, v, self.k_cache, self.v_cache, position, spec.head_dim**-0.5, spec.window or 0
        )


class Decoder(nn.Module):
    """A decoder-only language model that returns the last token's logits."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, spec: DecoderSpec, max_seq_len: int, ops: Operators = COMPOSITE) -> None:
        """Create the modules on the current default device (`meta` costs no memory).

        Args:
            spec: The model.
            max_seq_len: Positions the KV cache and the rotary tables hold.
            ops: How the large steps are written.
        """
        super().__init__()
        self.ops = ops
        self.spec = spec
        self.max_seq_len = max_seq_len
        self.embed = Embedding(spec.vocab_size, spec.hidden_size)
        for name in ("cos", "sin"):
            table = torch.empty(max_seq_len, spec.rope.dim // 2)
            self.register_buffer(name, table, persistent=False)
        self.layers = nn.ModuleList(Layer(layer, spec, max_seq_len, ops) for layer in spec.layers)
        self.norm = Norm(spec.hidden_size)
        self.head = Linear(spec.hidden_size, spec.vocab_size, bias=False)
        self.requires_grad_(False)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """Return the next token's logits.

        Args:
            tokens: int64 `[1, seq]`, seq >= 1.
            input_pos: int64 `[1]`, position of the first token; 0 starts a new sequence.

        Returns:
            float32 `[1, vocab]`, logits after the last token.
        """
        x = self.embed(tokens)
        position = self.ops.position(input_pos, tokens.shape[1], self.max_seq_len)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, position, last=layer is self.layers[-1])
        logits: torch.Tensor = self.head(self.ops.rms_norm(x, self.norm.weight, self.spec.norm_eps))
        return logits


def weightless(spec: DecoderSpec, max_seq_len: int, ops: Operators = COMPOSITE) -> Decoder:
    """Return the decoder on the meta device: shapes and names, no memory."""
    with torch.device("meta"):
        return Decoder(spec, max_seq_len, ops).eval()


def with_weights(
    spec: DecoderSpec,
    max_seq_len: int,
    weights: Mapping[str, torch.Tensor],
    ops: Operators = COMPOSITE,
) -> Decoder:
    """Return the decoder in float32 on the CPU, ready to run.

    Args:
        spec: The model.
        max_seq_len: Positions the KV cache holds.
        weights: Every name of `parameter_shapes(spec)`; tensors are taken, not copied.
        ops: How the large steps are written.
    """
    decoder = weightless(spec, max_seq_len, ops).to_empty(device="cpu")
    decoder.load_state_dict(dict(weights), strict=True, assign=True)
    decoder.cos, decoder.sin = rope_tables(spec.rope, max_seq_len)
    for name, buffer in decoder.named_buffers():
        if name.endswith("_cache"):
            buffer.zero_()
    return decoder.requires_grad_(False).eval()
