"""The model as the NPU computes it, in float32: the reference of a quantised program.

Every result is rounded to its encoding. Products are those of the HTP (QNN 2.49.40, found with its
emulator, one operation at a time): an accumulator of 16-bit activations times 4-bit or 8-bit
numbers is cut off to a whole multiple of 256, always downwards, before it is scaled to the result's
encoding; a bias is rounded to the nearest such multiple. Without that rule the results of the
embedded model's linear maps are 3.5 steps beside on average and 70 at most; with it 0.003 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mobilepack.backends.qnn.constants import QuantisedConstants
from mobilepack.backends.qnn.encodings import Codes
from mobilepack.backends.qnn.evaluate import Case, evaluate, plainly
from mobilepack.backends.qnn.graph import MOVES, Step

DROPPED = 256
"""Multiples of which an accumulator can be."""


class FakeQuantised:
    """A model's graphs with its encodings."""

    def __init__(self, constants: QuantisedConstants, codes: Codes) -> None:
        self._constants, self._codes = constants, codes

    def run(
        self,
        cases: Sequence[Case],
        on_share: Callable[[float], None],
        noisy: frozenset[int] = frozenset(),
    ) -> list[list[torch.Tensor]]:
        """Run cases; returns their outputs.

        Args:
            cases: Inputs are floats, caches and masks on the steps of their encodings.
            noisy: Numbers of the cases whose 16-bit roundings are made at random: up or down by
                what is cut off. That is the least that another arithmetic does. Seeded.
        """
        noise = torch.Generator().manual_seed(0)

        def after(step: Step, value: torch.Tensor, number: int) -> torch.Tensor:
            if value.dtype != torch.float32 or (step.kind in MOVES and not _is_look_up(step)):
                return value
            code = self._codes[step.output.name]
            if number in noisy and code.bits == 16:
                value = value + (torch.rand(value.shape, generator=noise) - 0.5) * code.scale
            return code.rounded(value)

        for case in cases:
            for tensor in case.graph.inputs:
                if tensor.dtype == "float32" and tensor.name in case.inputs:
                    rounded = self._codes[tensor.name].rounded(case.inputs[tensor.name])
                    case.inputs = {**case.inputs, tensor.name: rounded}

        def load(step: Step) -> dict[str, torch.Tensor]:
            return self._constants.operands(step, self._codes)

        return evaluate(cases, load, after, on_share, self._apply)

    def _apply(self, step: Step, x: Sequence[torch.Tensor]) -> torch.Tensor:
        if step.kind == "linear":
            scales = self._constants.bias_scales(step.inputs[0], step.inputs[1], self._codes)
            product = _product(x[0], x[1], self._codes[step.inputs[0].name].scale)
            multiples = product if len(x) == 2 else product + torch.round(x[2] / scales / DROPPED)
            return multiples * (scales * DROPPED)
        if step.kind == "matmul":
            one, other = (self._codes[t.name].scale for t in step.inputs)
            return _product(x[0], torch.round(x[1] / other), one) * (one * other * DROPPED)
        return plainly(step, x)


def _product(x: torch.Tensor, integers: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the accumulators in whole multiples.

    In two halves, because float32 holds each one's integers exactly (below 2^24) and not the whole.
    """
    steps = torch.round(x / scale)
    upper = torch.floor(steps / DROPPED)
    lower = torch.matmul(steps - upper * DROPPED, integers)
    return torch.matmul(upper, integers) + torch.floor(lower / DROPPED)


def _is_look_up(step: Step) -> bool:
    return step.kind in ("embedding", "gather")
