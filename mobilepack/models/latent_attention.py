"""Multi-head latent attention as blocks run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobilepack.models import ops_blocks as _ops_blocks  # noqa: F401  registers the operators

if TYPE_CHECKING:
    from mobilepack.models.blocks import KeyValueCache, Layer, Tables
    from mobilepack.models.mla_spec import LatentAttentionSpec
    from mobilepack.models.operators import Position


def attend_latent(
    layer: Layer, h: torch.Tensor, state: KeyValueCache, tables: Tables, position: Position
) -> torch.Tensor:
    """Return what the heads gather, `[1, seq, n_heads * value_dim]`."""
    spec, ops, ours = cast("LatentAttentionSpec", layer.spec.mixer), layer.ops, torch.ops.mobilepack
    cos, sin = tables.turns(spec.rope)
    source = h
    if spec.q_rank is not None:
        source = ops.rms_norm(layer.run("q_a", h), layer.weight("q_a_norm"), spec.eps)
    plain, turned = layer.run("q_plain", source), layer.run("q_turned", source)
    latent = ops.rms_norm(layer.run("kv_a", h), layer.weight("kv_a_norm"), spec.eps)
    key = layer.run("k_turned", h)
    turned = ops.rope(turned, cos, sin, position, spec.n_heads, spec.rope.interleaved)
    key = ops.rope(key, cos, sin, position, 1, spec.rope.interleaved)
    absorbed = ours.block_linear(plain, layer.weight("k_up"), None, spec.n_heads, False)
    gathered = ops.attention(
        ours.join_heads(absorbed, turned, spec.n_heads),
        ours.join_heads(latent, key, 1),
        ours.join_heads(latent, key, 1),  # its rotated channels are left out of the result
        state.k_cache,
        state.v_cache,
        position,
        spec.scale,
        0,
        0.0,
        None,
    )
    mixed: torch.Tensor = ours.block_linear(
        gathered, layer.weight("v_up"), None, spec.n_heads, True
    )
    return mixed
