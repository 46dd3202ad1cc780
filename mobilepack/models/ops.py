"""The decoder's composite operators, each with a plain torch definition.

torch.export keeps each as one node, so that a backend sees "attention with its cache" instead of
forty primitive operators. Activations are float32 `[batch, seq, channels]` throughout; heads lie
side by side in the channels. Importing this module registers the operators under
`torch.ops.mobilepack`.
"""

from __future__ import annotations

import torch


@torch.library.custom_op("mobilepack::rms_norm", mutates_args=())
def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Normalise the last axis by its root mean square (Zhang and Sennrich 2019, equation 4)."""
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return normed if weight is None else normed * weight


@rms_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::layer_norm", mutates_args=())
def layer_norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Normalise the last axis to mean 0 and variance 1 (Ba et al. 2016), then scale and shift."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


@layer_norm.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::head_norm", mutates_args=())
def head_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    groups: int,
    eps: float,
    centred: bool,
) -> torch.Tensor:
    """Normalise queries or keys in `groups` equal runs of channels, each on its own (qk-norm).

    Args:
        x: `[batch, seq, channels]`.
        weight: `[channels / groups]` for all groups, or `[channels]`.
        bias: Like `weight`.
        groups: As many as heads, or 1 to normalise all channels together.
        eps: Added to the mean square.
        centred: Whether the mean is removed first (layer norm), else an RMS norm.
    """
    split: torch.Tensor = x.unflatten(-1, (groups, -1))
    if centred:
        split = split - split.mean(-1, keepdim=True)
    normed = split * torch.rsqrt(split.pow(2).mean(-1, keepdim=True) + eps)
    if weight is not None:
        normed = normed * weight.view(-1, split.shape[-1])
    if bias is not None:
        normed = normed + bias.view(-1, split.shape[-1])
    return normed.flatten(-2)


@head_norm.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    groups: int,
    eps: float,
    centred: bool,
) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::rope", mutates_args=())
def rope(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    input_pos: torch.Tensor,
    heads: int,
    interleaved: bool,
) -> torch.Tensor:
    """Rotate the first `2 * cos.shape[1]` channels of each head by the position's angles.

    Args:
        x: `[batch, seq, heads * head_dim]`.
        cos: Table `[max_seq_len, rotated / 2]`.
        sin: Table of the same shape.
        input_pos: int64 `[1]`, position of the first token.
        heads: Number of heads in `x`.
        interleaved: Whether neighbours form the pairs (Su et al. 2021), else the two halves of the
            rotated channels (Hugging Face's `rotate_half`).
    """
    start, length, half = int(input_pos[0]), x.shape[1], cos.shape[1]
    c, s = (table[start : start + length].unsqueeze(1) for table in (cos, sin))
    split = x.unflatten(-1, (heads, -1))
    rotated, rest = split[..., : 2 * half], split[..., 2 * half :]
    if interleaved:
        a, b = rotated[..., ::2], rotated[..., 1::2]
        turned = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
    else:
        a, b = rotated[..., :half], rotated[..., half:]
        turned = torch.cat([a * c - b * s, b * c + a * s], -1)
    return torch.cat([turned, rest], -1).flatten(-2)


@rope.register_fake
def _(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    input_pos: torch.Tensor,
    heads: int,
    interleaved: bool,
) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mobilepack::positions", mutates_args=())
def positions(
    x: torch.Tensor, table: torch.Tensor, input_pos: torch.Tensor, offset: int
) -> torch.Tensor:
    """Return the learned positions of the tokens in `x`, `[1, seq, hidden]`.

    Args:
        x: `[batch, seq, hidden]`, of which only the length counts.
        table: `[rows, hidden]`.
        input_pos: int64 `[1]`, position of the first token.
        offset: Row of position 0.
    """
    start = int(input_pos[0]) + offset
    return table[start : start + x.shape[1]].unsqueeze(0).clone()


@positions.register_fake
def _(x: torch.Tensor, table: torch.Tensor, input_pos: torch.Tensor, offset: int) -> torch.Tensor:
    return x.new_empty((1, x.shape[1], table.shape[1]))


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
    softcap: float,
    alibi: torch.Tensor | None,
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
        softcap: Scores become `softcap * tanh(score / softcap)`; 0 leaves them.
        alibi: `[n_heads, max_seq_len or more]`, added to the scores by the key's position.

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
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if alibi is not None:
        scores = scores + alibi[:, : start + length].unflatten(0, (kv_heads, groups)).unsqueeze(2)
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
    softcap: float,
    alibi: torch.Tensor | None,
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
