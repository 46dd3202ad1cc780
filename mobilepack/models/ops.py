"""The decoder's composite operators, each with a plain torch definition.

torch.export keeps each as one node, so that a backend sees "attention with its cache" instead of
forty primitive operators. Activations are float32 `[batch, seq, channels]` throughout; heads lie
side by side in the channels. Importing this module registers the operators under
`torch.ops.mobilepack`.
"""

from __future__ import annotations

import torch


@torch.library.custom_op("mobilepack::rms_norm", mutates_args=())
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise the last axis by its root mean square (Zhang and Sennrich 2019, equation 4)."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


@rms_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::head_norm", mutates_args=())
def head_norm(x: torch.Tensor, weight: torch.Tensor, heads: int, eps: float) -> torch.Tensor:
    """RMS-normalise each head's channels with one shared weight `[head_dim]` (qk-norm)."""
    split: torch.Tensor = x.unflatten(-1, (heads, -1))
    normed = split * torch.rsqrt(split.pow(2).mean(-1, keepdim=True) + eps) * weight
    return normed.flatten(-2)


@head_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, heads: int, eps: float) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::rope", mutates_args=())
def rope(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, input_pos: torch.Tensor, heads: int
) -> torch.Tensor:
    """Rotate the first `2 * cos.shape[1]` channels of each head by the position's angles.

    The two halves of the rotated channels form the pairs (Hugging Face's `rotate_half` order, not
    the interleaved order of Su et al. 2021).

    Args:
        x: `[batch, seq, heads * head_dim]`.
        cos: Table `[max_seq_len, rotated / 2]`.
        sin: Table of the same shape.
        input_pos: int64 `[1]`, position of the first token.
        heads: Number of heads in `x`.
    """
    start, length, half = int(input_pos[0]), x.shape[1], cos.shape[1]
    c, s = (table[start : start + length].unsqueeze(1) for table in (cos, sin))
    split = x.unflatten(-1, (heads, -1))
    a, b, rest = split[..., :half], split[..., half : 2 * half], split[..., 2 * half :]
    return torch.cat([a * c - b * s, b * c + a * s, rest], -1).flatten(-2)


@rope.register_fake
def _(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, input_pos: torch.Tensor, heads: int
) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::attention", mutates_args=("k_cache", "v_cache"))
def attention(  # noqa: PLR0913  queries, keys, values and their cache belong together
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    input_pos: torch.Tensor,
    scale: float,
    window: int,
) -> torch.Tensor:
    """Write keys and values to the cache, then attend causally over all that it holds.

    Args:
        q: `[batch, seq, n_heads * head_dim]`, rotated.
        k: `[batch, seq, n_kv_heads * head_dim]`, rotated.
        v: `[batch, seq, n_kv_heads * head_dim]`.
        k_cache: `[1, max_seq_len, n_kv_heads, head_dim]`; rows from `input_pos` on are overwritten.
        v_cache: Like `k_cache`.
        input_pos: int64 `[1]`, position of the first token.
        scale: Factor on the scores, usually `head_dim ** -0.5`.
        window: Sliding window in tokens, the token itself included; 0 for full attention.

    Returns:
        `[batch, seq, n_heads * head_dim]`; batch is 1, as the cache belongs to one sequence.
    """
    start, length = int(input_pos[0]), q.shape[1]
    kv_heads, head_dim = k_cache.shape[2:]
    k_cache[:, start : start + length] = k.unflatten(-1, (kv_heads, head_dim))
    v_cache[:, start : start + length] = v.unflatten(-1, (kv_heads, head_dim))
    keys, values = k_cache[0, : start + length], v_cache[0, : start + length]
    groups = q.shape[-1] // (kv_heads * head_dim)
    queries = q[0].unflatten(-1, (kv_heads, groups, head_dim))
    scores = torch.einsum("sgqd,tgd->gqst", queries, keys) * scale
    scores = scores + causal_mask(start, length, window)
    return torch.einsum("gqst,tgd->sgqd", scores.softmax(-1), values).flatten(1).unsqueeze(0)


@attention.register_fake
def _(  # noqa: PLR0913
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    input_pos: torch.Tensor,
    scale: float,
    window: int,
) -> torch.Tensor:
    return torch.empty_like(q)


@torch.library.custom_op("mobilepack::last_token", mutates_args=())
def last_token(x: torch.Tensor) -> torch.Tensor:
    """Return the last position, `[batch, seq, channels] -> [batch, channels]`."""
    return x[:, -1].clone()


@last_token.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty((x.shape[0], x.shape[2]))


def causal_mask(start: int, length: int, window: int) -> torch.Tensor:
    """Return the additive mask `[length, start + length]`: 0 where a query may look, else -inf."""
    rows = torch.arange(start, start + length).unsqueeze(1)
    columns = torch.arange(start + length).unsqueeze(0)
    hidden = columns > rows
    if window:
        hidden |= columns <= rows - window
    return torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
