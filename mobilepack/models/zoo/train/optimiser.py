"""Muon for the matrices, Adam for the embedding and the norms.

Muon: Keller Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/ ; the quintic
coefficients and the momentum are that page's. It is used because it needs about half the tokens
that AdamW needs here, and tokens are what two CPU cores are short of.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_MOMENTUM: Final = 0.95
_BETAS: Final = (0.9, 0.95)
_EPS: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates, and the decay of the matrices relative to the rate."""

    muon: float = 0.02
    adam: float = 0.003
    decay: float = 0.05


def orthogonalise(gradient: Tensor) -> Tensor:
    """Bring a matrix near the closest orthogonal one, in five steps."""
    a, b, c = _QUINTIC
    x: Tensor = gradient.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T.contiguous() if tall else x
    for _ in range(5):
        gram = torch.mm(x, x.T)
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).float()


class Optimiser:
    """Holds the momenta of one set of named fp32 parameters and steps them in place."""

    def __init__(self, parameters: dict[str, Tensor], rates: Rates) -> None:
        """Start with zero momenta; a matrix not named ``embed`` goes to Muon."""
        self.rates = rates
        self.parameters = parameters
        self.steps = 0
        self.first = {name: torch.zeros_like(p) for name, p in parameters.items()}
        adam = [n for n, p in parameters.items() if p.ndim != 2 or "embed" in n]
        self.second = {name: torch.zeros_like(parameters[name]) for name in adam}

    def state(self) -> dict[str, Tensor]:
        """Return the momenta, flat and named."""
        first = {f"first.{name}": value for name, value in self.first.items()}
        return first | {f"second.{name}": value for name, value in self.second.items()}

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Take up what ``state`` returned after that many steps."""
        self.steps = steps
        for prefix, held in (("first", self.first), ("second", self.second)):
            for name, value in held.items():
                value.copy_(state[f"{prefix}.{name}"])

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor], share: float) -> None:
        """Take one step at ``share`` (0 to 1) of the peak rates."""
        self.steps += 1
        for name in self.parameters:
            update = self._adam if name in self.second else self._muon
            update(name, gradients[name], share)

    def _muon(self, name: str, gradient: Tensor, share: float) -> None:
        momentum = self.first[name].lerp_(gradient, 1 - _MOMENTUM)
        direction = orthogonalise(gradient.lerp(momentum, _MOMENTUM))
        rows, columns = direction.shape
        rate = self.rates.muon * share
        scale = rate * max(1.0, rows / columns) ** 0.5
        self.parameters[name].mul_(1 - rate * self.rates.decay).sub_(direction, alpha=scale)

    def _adam(self, name: str, gradient: Tensor, share: float) -> None:
        slow, fast = _BETAS
        first = self.first[name].lerp_(gradient, 1 - slow)
        second = self.second[name].lerp_(gradient.square(), 1 - fast)
        first = first / (1 - slow**self.steps)
        root = (second / (1 - fast**self.steps)).sqrt_().add_(_EPS)
        self.parameters[name].sub_(first / root, alpha=self.rates.adam * share)
