"""Mixers of tokens with a state of fixed size, as blocks run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from mobilepack.models import ops_blocks as _ops_blocks  # noqa: F401  registers the operators
from mobilepack.models import ops_recurrent as _ops  # noqa: F401  likewise

if TYPE_CHECKING:
    from mobilepack.models.blocks import Layer, Tables
    from mobilepack.models.operators import Position
    from mobilepack.models.recurrent_spec import Mamba2Spec, RgLruSpec, ShortConvSpec

_OURS = torch.ops.mobilepack


class States(nn.Module):
    """What a mixer carries from call to call, by name."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape), persistent=False)

    def get(self, name: str) -> torch.Tensor:
        """Return one state."""
        state: torch.Tensor = getattr(self, name)
        return state


def short_conv_states(spec: ShortConvSpec, max_seq_len: int) -> States:
    """Return the states of LFM2's mixer."""
    del max_seq_len
    return States({"conv": (1, spec.conv.before, spec.width)})


def mamba2_states(spec: Mamba2Spec, max_seq_len: int) -> States:
    """Return the states of Mamba 2's mixer."""
    del max_seq_len
    shared, before = spec.groups * spec.state, spec.conv.before
    sizes = {"x": spec.inner, "b": shared, "c": shared}
    states: dict[str, tuple[int, ...]] = {
        f"conv_{name}": (1, before, size) for name, size in sizes.items()
    }
    return States(states | {"ssm": (spec.n_heads, spec.head_dim, spec.state)})


def rg_lru_states(spec: RgLruSpec, max_seq_len: int) -> States:
    """Return the states of RecurrentGemma's mixer."""
    del max_seq_len
    return States({"conv": (1, spec.conv.before, spec.width), "lru": (1, 1, spec.width)})


def _convolved(
    layer: Layer, name: str, x: torch.Tensor, states: States, position: Position
) -> torch.Tensor:
    convolved: torch.Tensor = _OURS.causal_conv(x, *layer.vectors(name), states.get(name), position)
    return convolved


def short_conv(
    layer: Layer, h: torch.Tensor, state: States, tables: Tables, position: Position
) -> torch.Tensor:
    """Return c * conv(b * x)."""
    del tables
    b, c, x = (layer.run(f"in_{name}", h) for name in ("b", "c", "x"))
    return c * _convolved(layer, "conv", b * x, state, position)


def mamba2(
    layer: Layer, h: torch.Tensor, state: States, tables: Tables, position: Position
) -> torch.Tensor:
    """Return the gated and normalised output of the state-space model."""
    del tables
    spec, act = cast("Mamba2Spec", layer.spec.mixer), layer.ops.activation
    z, dt = layer.run("in_z", h), layer.run("in_dt", h)
    x, b, c = (
        act(
            _convolved(layer, f"conv_{name}", layer.run(f"in_{name}", h), state, position),
            spec.activation,
        )
        for name in ("x", "b", "c")
    )
    vectors = (layer.weight(name) for name in ("dt_bias", "a_log", "d"))
    y = _OURS.state_space(x, dt, b, c, *vectors, state.get("ssm"), position, *spec.dt_limits)
    weight = layer.weight("gated_norm")
    return layer.ops.head_norm(y * act(z, "silu"), weight, None, spec.groups, spec.eps, False)


def rg_lru(
    layer: Layer, h: torch.Tensor, state: States, tables: Tables, position: Position
) -> torch.Tensor:
    """Return the recurrence's output times the other branch."""
    del tables
    spec = cast("RgLruSpec", layer.spec.mixer)
    y = layer.ops.activation(layer.run("in_y", h), spec.activation)
    x = _convolved(layer, "conv", layer.run("in_x", h), state, position)
    gates = (
        _OURS.block_linear(x, *layer.vectors(name), spec.heads, False)
        for name in ("input_gate", "recurrent_gate")
    )
    parameter = layer.weight("recurrent_param")
    mixed: torch.Tensor = _OURS.rg_lru(x, *gates, parameter, state.get("lru"), position)
    return mixed * y
