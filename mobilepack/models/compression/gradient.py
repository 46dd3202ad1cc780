"""First-order importance of channels, with streamed weights.

Removing a channel changes the loss by minus the sum over tokens of the channel times the loss'
gradient in it, to first order: the derivative by a gate of 1 on the channel. It equals the sum of
weight times gradient over every weight that hangs on the channel (LLM-Pruner, Ma et al. 2023,
arXiv 2305.11627, equation 3), and needs no gradient of a weight: only activations are kept for the
way back, and weights are read a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from mobilepack.models import ops
from mobilepack.models.graph import arguments, fixed
from mobilepack.models.source import Readable, chunks
from mobilepack.models.streaming import FP32, Lane, Parameters, Value, Walk

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


class Eager(Protocol):
    """A model to be computed; see `pipeline/reference.py`."""

    @property
    def exported(self) -> ExportedProgram:
        """Its graph."""
        ...

    @property
    def parameters(self) -> Parameters:
        """Its weights."""
        ...

    @property
    def tables(self) -> Mapping[str, torch.Tensor]:
        """Its constants."""
        ...


def channel_importance(
    eager: Eager,
    rows: Sequence[tuple[int, ...]],
    gated: Sequence[str],
    on_share: Callable[[float], None],
) -> dict[str, torch.Tensor]:
    """Return the importance of the input channels of some linear maps, float32 `[columns]`.

    Args:
        eager: The model.
        rows: Token ids; importance is the mean over rows of its absolute value.
        gated: Weights whose input channels are judged.
        on_share: Told the share of rows that is done.
    """
    parameters = eager.parameters
    total = {name: torch.zeros(parameters.shape(name)[1]) for name in gated}
    for number, row in enumerate(rows):
        walk = _Walk(eager.exported, parameters, eager.tables, [Lane(row, FP32)])
        walk.gates = {name: torch.ones_like(value) for name, value in total.items()}
        for gate in walk.gates.values():
            gate.requires_grad_()
        with torch.enable_grad():
            (logits,) = walk.run(lambda share: None)
            functional.cross_entropy(logits[:-1], torch.tensor(row[1:])).backward()
        for name, gate in walk.gates.items():
            if gate.grad is not None:
                total[name] += gate.grad.abs() / len(rows)
        on_share((number + 1) / len(rows))
    return total


class _Walk(Walk):
    """The evaluator with operators that torch can differentiate."""

    gates: Mapping[str, torch.Tensor]

    def _plain(self, node: Node) -> Value:
        return [
            _body(node.target)(
                *(self._argument(argument, index) for argument in arguments(node)), **node.kwargs
            )
            for index in range(len(self._lanes))
        ]

    def _linear(self, node: Node) -> Value:
        weight = self._names[arguments(node)[1].name]
        bias = (*arguments(node), None)[2]
        (x,) = self._values[arguments(node)[0]]
        if weight in self.gates:
            x = x * self.gates[weight]
        result = _streamed(x, self._parameters, weight)
        if bias is not None:
            result = result + self._parameters.tensor(self._names[bias.name])
        return [result]

    def _attention(self, node: Node) -> Value:
        kv_heads, head_dim = fixed(arguments(node)[3], 2), fixed(arguments(node)[3], 3)
        q, k, v = (self._values[argument][0] for argument in arguments(node)[:3])
        length = len(self._lanes[0].token_ids)
        caches = (torch.zeros(1, length, kv_heads, head_dim) for _ in range(2))
        rest = (self._argument(argument, 0) for argument in arguments(node)[5:])
        return [_body(node.target)(q, k, v, *caches, *rest)]


def _body(target: Any) -> Callable[..., torch.Tensor]:
    """Return an operator's definition in plain torch, which autograd can follow."""
    namespace, _, name = str(target).partition(".")
    if namespace != "mobilepack":
        return target  # type: ignore[no-any-return]
    operator = getattr(ops, name.partition(".")[0])
    # torch 2.13 keeps the decorated function here and offers no other way to it
    return operator._init_fn  # type: ignore[no-any-return]


class _Streamed(torch.autograd.Function):
    """x @ W.T with W read in pieces, on the way back once more."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, parameters: Readable, weight: str) -> torch.Tensor:
        ctx.parameters, ctx.weight = parameters, weight
        parts = [x @ rows.T for _, rows in chunks(parameters, weight)]
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor, None, None]:
        (grad,) = grads
        pieces = chunks(ctx.parameters, ctx.weight)
        total = sum(grad[..., start : start + len(rows)] @ rows for start, rows in pieces)
        assert isinstance(total, torch.Tensor)  # noqa: S101 - a weight has rows
        return total, None, None


def _streamed(x: torch.Tensor, parameters: Readable, weight: str) -> torch.Tensor:
    result: torch.Tensor = _Streamed.apply(x, parameters, weight)  # type: ignore[no-untyped-call]
    return result
