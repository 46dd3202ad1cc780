"""Run a graph in eager torch, several inputs side by side, so that a weight is read once for all.

What becomes of a step's result is the caller's choice: nothing, it is looked at (calibration), or
it is rounded as the NPU does (the fake-quantised reference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mobilepack.backends.qnn.graph import Graph, Kind, Step

Values = dict[str, torch.Tensor]
Load = Callable[[Step], Values]
"""Returns a step's operands that are constants, by name."""

After = Callable[[Step, torch.Tensor, int], torch.Tensor]
"""Given a step, its result and the number of the case; returns what goes on."""

Apply = Callable[[Step, Sequence[torch.Tensor]], torch.Tensor]
"""Returns a step's result."""


@dataclass(slots=True)
class Case:
    """A graph with inputs; graphs of cases that run together have the same steps by name."""

    graph: Graph
    inputs: Mapping[str, torch.Tensor]


def plainly(step: Step, operands: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a step's result in float32."""
    return _RUN[step.kind](step, operands)


@torch.no_grad()
def evaluate(
    cases: Sequence[Case],
    load: Load,
    after: After,
    on_share: Callable[[float], None],
    apply: Apply = plainly,
) -> list[list[torch.Tensor]]:
    """Run cases in step; returns each one's outputs, float32."""
    last = cases[0].graph.last_uses()
    kept = {t.name for t in cases[0].graph.outputs}
    values: list[Values] = [dict(case.inputs) for case in cases]
    count = len(cases[0].graph.steps)
    for index, step in enumerate(cases[0].graph.steps):
        constants = load(step)
        for number, case in enumerate(cases):
            own, held = case.graph.steps[index], values[number]
            operands = [
                constants[t.name] if t.name in constants else held[t.name] for t in own.inputs
            ]
            held[own.output.name] = after(own, apply(own, operands), number)
            for t in own.inputs:
                if t.name in held and last[t.name] == index and t.name not in kept:
                    del held[t.name]
        on_share((index + 1) / count)
    return [
        [held[t.name] for t in case.graph.outputs] for case, held in zip(cases, values, strict=True)
    ]


def _linear(step: Step, x: Sequence[torch.Tensor]) -> torch.Tensor:
    """Map by a matrix `[inputs, outputs]`."""
    mapped = torch.matmul(x[0], x[1])
    return mapped if len(x) == 2 else mapped + x[2]


def _layer_norm(step: Step, x: Sequence[torch.Tensor]) -> torch.Tensor:
    vectors = dict(zip(step.attributes["vectors"], x[1:], strict=True))
    shape = x[0].shape[-1:]
    return torch.nn.functional.layer_norm(
        x[0], shape, vectors.get("weight"), vectors.get("bias"), step.attributes["eps"]
    )


def _slice(step: Step, x: Sequence[torch.Tensor]) -> torch.Tensor:
    return x[0][tuple(slice(*part) for part in step.attributes["ranges"])]


def _clamp(step: Step, x: Sequence[torch.Tensor]) -> torch.Tensor:
    return x[0].clamp(step.attributes["low"], step.attributes["high"])


_RUN: dict[Kind, Callable[[Step, Sequence[Any]], torch.Tensor]] = {
    "add": lambda _, x: x[0] + x[1],
    "sub": lambda _, x: x[0] - x[1],
    "mul": lambda _, x: x[0] * x[1],
    "matmul": lambda _, x: torch.matmul(x[0], x[1]),
    "cat": lambda step, x: torch.cat(list(x), step.attributes["axis"]),
    "clamp": _clamp,
    "convert": lambda _, x: x[0],
    "embedding": lambda _, x: x[0][x[1].long()],
    "gather": lambda _, x: x[0][x[1].long()],
    "gelu": lambda _, x: torch.nn.functional.gelu(x[0]),
    "layer_norm": _layer_norm,
    "linear": _linear,
    "permute": lambda step, x: x[0].permute(step.attributes["order"]),
    "relu": lambda _, x: torch.relu(x[0]),
    "reshape": lambda step, x: x[0].reshape(step.output.shape),
    "rms_norm": lambda step, x: torch.nn.functional.rms_norm(
        x[0], x[0].shape[-1:], x[1] if len(x) > 1 else None, step.attributes["eps"]
    ),
    "sigmoid": lambda _, x: torch.sigmoid(x[0]),
    "slice": _slice,
    "softmax": lambda _, x: torch.softmax(x[0], -1),
    "tanh": lambda _, x: torch.tanh(x[0]),
}
