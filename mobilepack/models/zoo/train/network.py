"""A Llama decoder in plain torch, lean enough to train on two CPU cores.

Parameter names are the ones of ``transformers.LlamaForCausalLM``, so that saving is a copy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network, in the words of a Llama ``config.json``."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 512


class _Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.num_key_value_heads * shape.head_dim
        q = shape.num_attention_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, q, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(q, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        s = self.shape
        batch, length, _ = x.shape
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        heads = functional.linear(x, weight).view(batch, length, -1, s.head_dim).transpose(1, 2)
        q, k, v = torch.split(
            heads, [s.num_attention_heads, s.num_key_value_heads, s.num_key_value_heads], dim=1
        )
        q, k = _rotate(q * s.head_dim**-0.5, cos, sin), _rotate(k, cos, sin)
        groups = s.num_attention_heads // s.num_key_value_heads
        q = q.reshape(batch * s.num_key_value_heads, groups * length, s.head_dim)
        # Explicit products: on a CPU they beat the fused attention at these lengths (measured).
        scores = torch.bmm(q, k.flatten(0, 1).transpose(1, 2))
        scores = scores.view(-1, groups, length, length) + mask
        probabilities = scores.softmax(-1).view(-1, groups * length, length)
        mixed = torch.bmm(probabilities, v.flatten(0, 1))
        mixed = mixed.view(batch, s.num_attention_heads, length, s.head_dim).transpose(1, 2)
        return _apply(self.o_proj, mixed.reshape(batch, length, -1))


class _FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.silu(_apply(self.gate_proj, x))
        return _apply(self.down_proj, gate * _apply(self.up_proj, x))


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = _FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn.forward(self.input_layernorm.forward(x), cos, sin, mask)
        return x + self.mlp.forward(self.post_attention_layernorm.forward(x))


class _Body(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = _Norm(shape.hidden_size, shape.rms_norm_eps)


class Network(nn.Module):
    """The decoder with tied embeddings; computes in its parameters' dtype."""

    def __init__(self, shape: Shape) -> None:
        """Build the network with random weights from torch's global generator."""
        super().__init__()
        self.shape = shape
        self.model = _Body(shape)
        deep = 0.02 * (2 * shape.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=deep if out else 0.02)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits [batch, seq, vocab] for the tokens [batch, seq]."""
        weight = self.model.embed_tokens.weight
        length = tokens.shape[1]
        cos, sin = _rotary(self.shape, length, weight.dtype)
        mask = torch.full((length, length), float("-inf"), dtype=weight.dtype).triu(1)
        x = functional.embedding(tokens, weight)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        return functional.linear(self.model.norm.forward(x), weight)

    def loss(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """Return the sum over targets of weight times cross entropy, in nats.

        Args:
            tokens: int64 [batch, seq].
            weights: float32 [batch, seq]; what each token counts as a target (the first: nothing).
        """
        scores = self.logits(tokens[:, :-1]).float().flatten(0, 1)
        targets = functional.cross_entropy(scores, tokens[:, 1:].flatten(), reduction="none")
        return (targets * weights[:, 1:].flatten()).sum()


def _apply(linear: nn.Linear, x: Tensor) -> Tensor:
    return functional.linear(x, linear.weight)


def _rotary(shape: Shape, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32)
    angles = torch.outer(torch.arange(length).float(), shape.rope_theta ** (-half / shape.head_dim))
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
