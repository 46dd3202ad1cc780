"""Mixtures of experts as blocks run them, and as lanes run them while weights stream by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch

from mobilepack.models import ops_moe as _ops_moe  # noqa: F401  registers the operators
from mobilepack.models.encodings import linear_encoding
from mobilepack.models.operators import COMPOSITE
from mobilepack.models.quantization import fake_quantise_activations, quantise

if TYPE_CHECKING:
    from mobilepack.models.blocks import Layer
    from mobilepack.models.layer_spec import Activation
    from mobilepack.models.moe_spec import MoeSpec


def mixture(layer: Layer, h: torch.Tensor) -> torch.Tensor:
    """Return what the chosen experts, and the shared one, add."""
    spec, ours = cast("MoeSpec", layer.spec.ffn), torch.ops.mobilepack
    logits = ours.small_linear(h, layer.weight("router"))
    chosen = ours.top_experts(logits, spec.count)
    factors = ours.expert_weights(logits, chosen, spec.weighting, spec.jitter)
    matrices = (layer.weight(f"experts_{name}") for name in ("gate", "up", "down"))
    results = ours.experts(h, chosen, *matrices, spec.activation)
    mixed: torch.Tensor = ours.combine(results, factors)
    if spec.shared is None:
        return mixed
    inner = layer.ops.activation(layer.run("shared_gate", h), spec.shared.activation)
    shared = layer.run("shared_down", inner * layer.run("shared_up", h))
    return mixed + shared * torch.sigmoid(ours.small_linear(h, layer.weight("shared_router")))


class Rows(Protocol):
    """Parameters that can be read in parts."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive) as float32."""


@dataclass(frozen=True, slots=True)
class ExpertLane:
    """One lane's part of a call of `mobilepack::experts`.

    Attributes:
        x: `[1, seq, hidden]`.
        chosen: int64 `[1, seq, count]`.
        group: Columns per scale of the int4 maps; 0 for float32.
    """

    x: torch.Tensor
    chosen: torch.Tensor
    group: int


def run_experts(
    parameters: Rows,
    names: tuple[str, str, str],
    lanes: Sequence[ExpertLane],
    activation: Activation,
) -> list[torch.Tensor]:
    """Return each lane's results, `[1, seq, count, hidden]`, with one expert in memory at a time.

    Args:
        parameters: The weights.
        names: Of the matrices gate, up and down, as `mobilepack::experts` takes them.
        lanes: What to run; an expert that none of them chose is not read.
        activation: Between the maps.
    """
    hidden, size = lanes[0].x.shape[-1], parameters.shape(names[2])[1]
    counts = (size, size, hidden)
    results = [lane.x.new_empty((*lane.chosen.shape, hidden)) for lane in lanes]
    flats = [result.view(-1, hidden) for result in results]
    for expert in range(parameters.shape(names[0])[0] // size):
        slots = [(lane.chosen.reshape(-1) == expert).nonzero()[:, 0] for lane in lanes]
        groups = {lane.group for lane, own in zip(lanes, slots, strict=True) if len(own)}
        matrices = [
            parameters.rows(name, expert * count, (expert + 1) * count)
            for name, count in zip(names, counts, strict=True)
            if groups
        ]
        for group in groups:
            used = [_rounded(matrix, group) for matrix in matrices]
            for lane, own, out in zip(lanes, slots, flats, strict=True):
                if lane.group == group and len(own):
                    tokens = own // lane.chosen.shape[-1]
                    x = lane.x.reshape(-1, hidden)[tokens]
                    out[own] = _expert(x, used, activation, group)
    return results


def _expert(
    x: torch.Tensor, matrices: Sequence[torch.Tensor], activation: Activation, group: int
) -> torch.Tensor:
    gate, up, down = matrices
    x = fake_quantise_activations(x) if group else x
    inner = COMPOSITE.activation(x @ gate.T, activation) * (x @ up.T)
    inner = fake_quantise_activations(inner) if group else inner
    return inner @ down.T


def _rounded(matrix: torch.Tensor, group: int) -> torch.Tensor:
    if not group:
        return matrix
    return quantise(matrix, *linear_encoding(matrix.shape[1], group)).dequantise()
