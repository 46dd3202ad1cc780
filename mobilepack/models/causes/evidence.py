"""What is known of an operator that computes something else, and what a cause must explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.fx import Node


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One call of the operator.

    Attributes:
        item: Which prompt the call belongs to; a cache goes on from item to item.
        position: Of the first token.
        inputs: What went in, as the program itself computed it, `[1, seq, channels]`.
        found: What the program made of it.
        expected: What eager PyTorch makes of the same inputs.
    """

    item: int
    position: int
    inputs: tuple[torch.Tensor, ...]
    found: torch.Tensor
    expected: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that is known.

    Attributes:
        node: The operator, of the exported graph.
        observations: In the order of the calls.
        constants: Weights and tables among its arguments, by the decoder's names, in float32.
        weight: The linear map's weight as the recipe rounds it, None for other operators.
        mapped: What the map's input is rounded to before it is multiplied.
        head_dim: Channels of a head where the operator works on heads, else 0.
        group: Columns of a weight that share a scale; 0 without.
        limits: Least and largest number that the result's encoding holds, None without one.
    """

    node: Node
    observations: tuple[Observation, ...]
    constants: Mapping[str, torch.Tensor]
    weight: torch.Tensor | None = None
    mapped: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    head_dim: int = 0
    group: int = 0
    limits: tuple[float, float] | None = None

    @property
    def found(self) -> torch.Tensor:
        """All results, one row per token: `[tokens, channels]`."""
        return torch.cat([flat(one.found) for one in self.observations])

    @property
    def expected(self) -> torch.Tensor:
        """The same of eager PyTorch."""
        return torch.cat([flat(one.expected) for one in self.observations])

    @property
    def inside(self) -> torch.Tensor:
        """Which results lie inside their encoding's limits, `[tokens, channels]`, 0 or 1."""
        if self.limits is None:
            return torch.ones_like(self.found)
        low, high = self.limits
        margin = (high - low) * 1e-4
        return ((self.found > low + margin) & (self.found < high - margin)).float()

    def held(self, value: torch.Tensor) -> torch.Tensor:
        """Return a value as the result's encoding holds it, its steps apart."""
        return value if self.limits is None else value.clamp(*self.limits)

    def input(self, index: int) -> torch.Tensor:
        """All inputs of one place, `[tokens, channels]`."""
        return torch.cat([flat(one.inputs[index]) for one in self.observations])


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause that explains the numbers.

    Attributes:
        name: Identifier.
        text: A sentence, with numbers.
        remedy: What to do.
        explained: Share of the squared error that it explains, 0 to 1.
    """

    name: str
    text: str
    remedy: str
    explained: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """A cause and the results `[tokens, channels]` that it predicts."""

    cause: Cause
    predicted: torch.Tensor


Hypotheses = Iterator[Hypothesis]


def flat(value: torch.Tensor) -> torch.Tensor:
    """Return one row per token."""
    return value.reshape(-1, value.shape[-1]).to(torch.float32)
