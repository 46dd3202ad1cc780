"""Recurrent layers over x [steps, batch, features] (formulas: coremltools 9.0, recurrent.py)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.ops.registry import operator

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
    "sigmoid_hard": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
    "scaled_tanh": torch.tanh,
}


def _ordered(x: Tensor, direction: str) -> Tensor:
    return x.flip(0) if direction == "reverse" else x


def _collected(steps: list[Tensor], direction: str, output_sequence: bool) -> Tensor:
    """Return all hidden states in the order of the input, or the last as [1, batch, hidden]."""
    if not output_sequence:
        return steps[-1][None]
    return _ordered(torch.stack(steps), direction)


def _lstm_direction(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    activations: tuple[Activation, Activation, Activation],
    clip: float,
) -> tuple[list[Tensor], Tensor]:
    """Run one direction; gates are ordered input, forget, output, cell. Return states and cell."""
    (h, c), (w_ih, w_hh, bias, peephole) = state, weights
    gate, candidate, output = activations
    peep = torch.zeros(3, h.shape[-1]) if peephole is None else peephole.reshape(3, -1)
    found = []
    for row in x:
        i, f, o, z = (functional.linear(row, w_ih, bias) + functional.linear(h, w_hh)).chunk(4, -1)
        i, f = (
            gate((i + peep[0] * c).clamp(-clip, clip)),
            gate((f + peep[1] * c).clamp(-clip, clip)),
        )
        c = f * c + i * candidate(z.clamp(-clip, clip))
        h = gate((o + peep[2] * c).clamp(-clip, clip)) * output(c)
        found.append(h)
    return found, c


@operator("lstm")
def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float = float("inf"),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a long short-term memory; return (states, last state, last cell)."""
    names = (recurrent_activation, cell_activation, activation)
    functions = (ACTIVATIONS[names[0]], ACTIVATIONS[names[1]], ACTIVATIONS[names[2]])
    weights = (weight_ih, weight_hh, bias, peephole)
    hidden = weight_hh.shape[-1]
    first = (initial_h[:, :hidden], initial_c[:, :hidden])
    way = "reverse" if direction == "reverse" else "forward"
    states, cell = _lstm_direction(_ordered(x, way), first, weights, functions, clip)
    sequence = _collected(states, way, output_sequence)
    if direction != "bidirectional" or weight_ih_back is None or weight_hh_back is None:
        return sequence, states[-1], cell
    second = (initial_h[:, hidden:], initial_c[:, hidden:])
    weights = (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    back, back_cell = _lstm_direction(x.flip(0), second, weights, functions, clip)
    other = _collected(back, "reverse", output_sequence)
    return (
        torch.cat([sequence, other], -1),
        torch.cat([states[-1], back[-1]], -1),
        torch.cat([cell, back_cell], -1),
    )


@operator("rnn")
def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """Run a simple recurrent layer; return (states, last state)."""
    h, found = initial_h, []
    for row in _ordered(x, direction):
        h = ACTIVATIONS[activation](
            functional.linear(row, weight_ih, bias) + functional.linear(h, weight_hh)
        )
        found.append(h)
    return _collected(found, direction, output_sequence), h
