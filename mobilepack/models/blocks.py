"""The decoder's blocks: attention or another mixer of tokens, then a feed-forward.

A block's parameters are its spec's (`spec.py`), so that names and shapes are said once; what a
mixer or a feed-forward does with them is a function, found by the type of its spec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from mobilepack.models.latent_attention import attend_latent
from mobilepack.models.layer_spec import (
    AttentionSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
    Shapes,
)
from mobilepack.models.mla_spec import LatentAttentionSpec
from mobilepack.models.moe import mixture
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.models.operators import Operators, Position
from mobilepack.models.recurrent import (
    mamba2,
    mamba2_states,
    rg_lru,
    rg_lru_states,
    short_conv,
    short_conv_states,
)
from mobilepack.models.recurrent_spec import Mamba2Spec, RgLruSpec, ShortConvSpec
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.tables import table_shapes


class Norm(nn.Module):
    """A norm's vectors, `[channels]`; either may be absent."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        for kind in ("weight", "bias"):
            self.register_parameter(kind, _parameter(*shapes[kind]) if kind in shapes else None)


class Linear(nn.Module):
    """A linear map without torch's random initialisation, which costs seconds on big models."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(outputs, inputs)
        self.bias = _parameter(outputs) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[..., inputs]` to `[..., outputs]`."""
        return nn.functional.linear(x, self.weight, self.bias)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape), requires_grad=False)


def add_modules(owner: nn.Module, shapes: Shapes) -> None:
    """Add a module for every parameter `name.weight` and `name.bias`: matrices become maps."""
    grouped: dict[str, Shapes] = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        grouped.setdefault(module, {})[kind] = shape
    for module, parts in grouped.items():
        weight = parts.get("weight", ())
        if len(weight) == 2:
            owner.add_module(module, Linear(weight[1], weight[0], "bias" in parts))
        else:
            owner.add_module(module, Norm(parts))


class Tables(nn.Module):
    """Rotary angles and linear biases, by the names of `tables.py`."""

    def __init__(self, spec: DecoderSpec, max_seq_len: int) -> None:
        super().__init__()
        self._ropes, self._alibis = spec.ropes, [alibi for alibi, _ in spec.alibis]
        self._heads = [heads for _, heads in spec.alibis]
        for name, shape in table_shapes(spec, max_seq_len).items():
            buffer = name.partition(".")[2]
            self.register_buffer(buffer, torch.empty(shape), persistent=False)

    def rotation(self, mixer: AttentionSpec) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return cosines and sines of an attention."""
        return None if mixer.rope is None else self.turns(mixer.rope)

    def turns(self, rope: RopeSpec) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines of a rotation."""
        index = self._ropes.index(rope)
        return getattr(self, f"cos_{index}"), getattr(self, f"sin_{index}")

    def biases(self, mixer: AttentionSpec) -> torch.Tensor | None:
        """Return the linear biases of an attention."""
        if mixer.alibi is None:
            return None
        pairs = list(zip(self._alibis, self._heads, strict=True))
        table: torch.Tensor = getattr(self, f"alibi_{pairs.index((mixer.alibi, mixer.n_heads))}")
        return table


class KeyValueCache(nn.Module):
    """What an attention has seen, `[1, max_seq_len, n_kv_heads, head_dim]` twice."""

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self, spec: AttentionSpec | LatentAttentionSpec, max_seq_len: int) -> None:
        super().__init__()
        for name in ("k_cache", "v_cache"):
            cache = torch.zeros(1, max_seq_len, spec.n_kv_heads, spec.head_dim)
            self.register_buffer(name, cache, persistent=False)


class Layer(nn.Module):
    """One decoder block's parameters and the order of its steps."""

    def __init__(self, spec: LayerSpec, hidden: int, ops: Operators) -> None:
        super().__init__()
        self.spec = spec
        self.ops = ops
        add_modules(self, spec.shapes(hidden))

    def forward(
        self,
        x: torch.Tensor,
        state: nn.Module,
        tables: Tables,
        position: Position,
        last: bool = False,
    ) -> torch.Tensor:
        """Map `[1, seq, hidden]` to the same shape, reading and writing the state.

        With `last`, only the last token is carried on after the mixer, `[1, hidden]`: nobody reads
        the others, and in prefill they cost most of the last layer's time.
        """
        form = self.spec.form
        h = x if form in ("post", "branch") else self.norm("attn_norm", x)
        if form.startswith("parallel"):
            return self._parallel(x, h, state, tables, position, last)
        mixed = self._mix(h, state, tables, position)
        if last:  # both at once: what follows is one segment
            mixed, x = self.ops.last_token(mixed), self.ops.last_token(x)
        x = self._joined(x, self.run("o", mixed), "attn")
        if self.spec.ffn is None:
            return x
        h = x if form in ("post", "branch") else self.norm("mlp_norm", x)
        return self._joined(x, self._feed(h), "mlp")

    def _joined(self, x: torch.Tensor, branch: torch.Tensor, name: str) -> torch.Tensor:
        """Add a sub-layer's result to the residual stream, with the norm its form asks for."""
        form = self.spec.form
        if form == "sandwich":
            branch = self.norm(f"{name}_post_norm", branch)
        if form == "branch":
            branch = self.norm(f"{name}_norm", branch)
        return self.norm(f"{name}_norm", x + branch) if form == "post" else x + branch

    def _parallel(
        self,
        x: torch.Tensor,
        h: torch.Tensor,
        state: nn.Module,
        tables: Tables,
        position: Position,
        last: bool,
    ) -> torch.Tensor:
        """Add both sub-layers to `x`; the feed-forward comes first, beside the queries.

        So both read `h` in one delegate, and only their sum waits for the attention.
        """
        two = self.spec.form == "parallel_two"
        if last:
            attended = self.ops.last_token(self._mix(h, state, tables, position))
            x = self.ops.last_token(x)
            h = self.norm("mlp_norm" if two else "attn_norm", x)
            return x + self._feed(h) + self.run("o", attended)
        rest = x + self._feed(self.norm("mlp_norm", x) if two else h)
        return rest + self.run("o", self._mix(h, state, tables, position))

    def _mix(
        self, h: torch.Tensor, state: nn.Module, tables: Tables, position: Position
    ) -> torch.Tensor:
        return MIXERS[type(self.spec.mixer)](self, h, state, tables, position)

    def _feed(self, h: torch.Tensor) -> torch.Tensor:
        return FEED_FORWARDS[type(self.spec.ffn)](self, h)

    def run(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply one of this block's linear maps."""
        mapped: torch.Tensor = getattr(self, name)(x)
        return mapped

    def weight(self, name: str) -> torch.Tensor:
        """Return one of this block's matrices."""
        matrix: torch.Tensor = getattr(self, name).weight
        return matrix

    def vectors(self, name: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return weight and bias of one of this block's norms."""
        module = getattr(self, name, None)
        return (None, None) if module is None else (module.weight, module.bias)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply one of this block's norms."""
        return normalise(self.ops, self.spec.norm, x, *self.vectors(name))


def normalise(
    ops: Operators,
    spec: NormSpec,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Normalise the last axis."""
    if spec.kind == "rms":
        return ops.rms_norm(x, weight, spec.eps)
    return ops.layer_norm(x, weight, bias, spec.eps)


def attend(
    layer: Layer, h: torch.Tensor, state: KeyValueCache, tables: Tables, position: Position
) -> torch.Tensor:
    """Return what the heads gather, `[1, seq, q_size]`."""
    spec, ops = cast(AttentionSpec, layer.spec.mixer), layer.ops
    q, k, v = (layer.run(name, h) for name in "qkv")
    q = _placed(layer, "q", q, tables, position)
    k = _placed(layer, "k", k, tables, position)
    return ops.attention(
        q,
        k,
        _clipped(spec, v),
        state.k_cache,
        state.v_cache,
        position,
        spec.head_dim**-0.5 if spec.scale is None else spec.scale,
        spec.window or 0,
        spec.softcap or 0.0,
        tables.biases(spec),
    )


def _clipped(spec: AttentionSpec, x: torch.Tensor) -> torch.Tensor:
    return x if spec.clip is None else x.clamp(-spec.clip, spec.clip)


def _placed(
    layer: Layer, name: str, x: torch.Tensor, tables: Tables, position: Position
) -> torch.Tensor:
    """Normalise and rotate queries or keys."""
    spec, ops = cast(AttentionSpec, layer.spec.mixer), layer.ops
    heads = spec.n_heads if name == "q" else spec.n_kv_heads
    if spec.qk_norm is not None:
        norm, groups = spec.qk_norm.norm, 1 if spec.qk_norm.scope == "all" else heads
        vectors = layer.vectors(f"{name}_norm")
        x = ops.head_norm(x, *vectors, groups, norm.eps, norm.kind == "layer")
    x = _clipped(spec, x)
    rotation = tables.rotation(spec)
    if rotation is None or spec.rope is None:
        return x
    return ops.rope(x, *rotation, position, heads, spec.rope.interleaved)


def feed_forward(layer: Layer, h: torch.Tensor) -> torch.Tensor:
    """Return what the feed-forward adds."""
    spec, activation = cast(FeedForwardSpec, layer.spec.ffn), layer.ops.activation
    if spec.gated:  # the gate first, so that `up` is not alive beside both its forms
        inner = activation(layer.run("gate", h), spec.activation) * layer.run("up", h)
    else:
        inner = activation(layer.run("up", h), spec.activation)
    return layer.run("down", inner)


MIXERS: dict[type, Callable[..., torch.Tensor]] = {
    AttentionSpec: attend,
    LatentAttentionSpec: attend_latent,
    ShortConvSpec: short_conv,
    Mamba2Spec: mamba2,
    RgLruSpec: rg_lru,
}
FEED_FORWARDS: dict[type, Callable[..., torch.Tensor]] = {
    FeedForwardSpec: feed_forward,
    MoeSpec: mixture,
}
STATES: dict[type, Callable[[Any, int], nn.Module]] = {
    AttentionSpec: KeyValueCache,
    LatentAttentionSpec: KeyValueCache,
    ShortConvSpec: short_conv_states,
    Mamba2Spec: mamba2_states,
    RgLruSpec: rg_lru_states,
}
