"""Composite operators of mixtures of experts, each with a plain torch definition.

Like `ops.py`: torch.export keeps each as one node. The experts' weights are one matrix each for all
of them, expert after expert, so that a layer of 128 experts is three parameters, not 384.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from mobilepack.models.layer_spec import Activation

SPARSEMIXER_BAND = 2.0  # factor on the jitter: arXiv 2409.12136, as transformers 5.23 computes it


@torch.library.custom_op("mobilepack::small_linear", mutates_args=())
def small_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply `[..., hidden]` by weights `[n, hidden]` that stay in float32, as routers do.

    A router has a thousandth of a layer's weights, and rounding it would move tokens to other
    experts.
    """
    return torch.nn.functional.linear(x, weight)


@small_linear.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.custom_op("mobilepack::top_experts", mutates_args=())
def top_experts(logits: torch.Tensor, count: int) -> torch.Tensor:
    """Return each token's experts with the largest logits, largest first.

    Args:
        logits: float32 `[..., experts]`.
        count: Experts per token.

    Returns:
        int64 `[..., count]`.
    """
    return logits.topk(count, dim=-1).indices


@top_experts.register_fake
def _(logits: torch.Tensor, count: int) -> torch.Tensor:
    return logits.new_empty((*logits.shape[:-1], count), dtype=torch.int64)


@torch.library.custom_op("mobilepack::expert_weights", mutates_args=())
def expert_weights(
    logits: torch.Tensor, chosen: torch.Tensor, kind: str, jitter: float
) -> torch.Tensor:
    """Return the factor on each chosen expert's result.

    Args:
        logits: float32 `[..., experts]`.
        chosen: From `top_experts`, `[..., count]`.
        kind: `softmax` over all experts; `softmax_chosen` over the chosen ones, which is the same
            as dividing by their sum; `sparsemixer`: the n-th expert's softmax among those whose
            logit is in a band below its own, those before it left out.
        jitter: sparsemixer: width of the band.

    Returns:
        float32 `[..., count]`.
    """
    if kind == "softmax":
        return logits.softmax(-1).gather(-1, chosen)
    if kind == "softmax_chosen":
        return logits.gather(-1, chosen).softmax(-1)
    return _sparsemixer(logits, chosen, SPARSEMIXER_BAND * jitter)


def _sparsemixer(logits: torch.Tensor, chosen: torch.Tensor, band: float) -> torch.Tensor:
    """Return arXiv 2409.12136's factors as transformers 5.23 `sparsemixer` computes them."""
    rest, factors = logits, []
    for slot in range(chosen.shape[-1]):
        index = chosen[..., slot : slot + 1]
        largest = rest.gather(-1, index)
        scale = torch.maximum(logits.abs(), largest)
        inside = rest.masked_fill((largest - logits) / scale > band, float("-inf"))
        factors.append(inside.softmax(-1).gather(-1, index))
        rest = rest.scatter(-1, index, float("-inf"))
    return torch.cat(factors, -1)


@expert_weights.register_fake
def _(logits: torch.Tensor, chosen: torch.Tensor, kind: str, jitter: float) -> torch.Tensor:
    return logits.new_empty(chosen.shape)


@torch.library.custom_op("mobilepack::experts", mutates_args=())
def experts(
    x: torch.Tensor,
    chosen: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
) -> torch.Tensor:
    """Run each token's chosen experts, gated feed-forwards without biases.

    Args:
        x: `[..., hidden]`.
        chosen: int64 `[..., count]`.
        gate: `[experts * size, hidden]`, expert after expert.
        up: Like `gate`.
        down: `[experts * hidden, size]`.
        activation: Between the maps, named as in `layer_spec.py`.

    Returns:
        `[..., count, hidden]`, one result per chosen expert.
    """
    from mobilepack.models.operators import COMPOSITE

    kind = cast("Activation", activation)
    hidden, size = x.shape[-1], down.shape[1]
    flat, picks = x.reshape(-1, hidden), chosen.reshape(-1)
    out = x.new_empty(len(picks), hidden)
    for expert in picks.unique().tolist():
        slots = (picks == expert).nonzero()[:, 0]
        h = flat[slots // chosen.shape[-1]]
        rows = slice(expert * size, (expert + 1) * size)
        inner = COMPOSITE.activation(h @ gate[rows].T, kind) * (h @ up[rows].T)
        out[slots] = inner @ down[expert * hidden : (expert + 1) * hidden].T
    return out.view(*chosen.shape, hidden)


@experts.register_fake
def _(
    x: torch.Tensor,
    chosen: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
) -> torch.Tensor:
    return x.new_empty((*chosen.shape, x.shape[-1]))


@torch.library.custom_op("mobilepack::combine", mutates_args=())
def combine(results: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum of experts' results, `[..., count, hidden] -> [..., hidden]`."""
    return (weights.unsqueeze(-2) @ results).squeeze(-2)


@combine.register_fake
def _(results: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return results.new_empty((*results.shape[:-2], results.shape[-1]))
