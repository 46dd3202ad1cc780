"""What goes wrong with a rotation: base, factor, position, pairing, direction."""

from __future__ import annotations

import math

import torch

from mobilepack.models.causes.evidence import Cause, Evidence, Hypotheses, Hypothesis
from mobilepack.models.graph import arguments

_REMEDY = "look at rope_theta and rope_scaling in config.json and how the family reads them"
_REMEDY += " (families/rope_config.py, models/rope.py)"
_PAIRS = "look at `interleaved` of the family and at how the weight's rows are sorted (operands.py)"


def rope(evidence: Evidence) -> Hypotheses:
    """Yield what each known fault of a rotation would have computed."""
    heads, interleaved = arguments(evidence.node)[4:6]
    cos = next(c for n, c in evidence.constants.items() if ".cos" in n)
    sin = next(c for n, c in evidence.constants.items() if ".sin" in n)
    turn = _Turn(evidence, int(heads), bool(interleaved), cos.shape[1])
    places = turn.places.clamp(max=len(cos) - 1)
    for by in (-1, 1):
        at = (places + by).clamp(0, len(cos) - 1)
        text = f"positions are off by {by:+d}"
        yield Hypothesis(Cause("shifted-positions", text, _REMEDY), turn(cos[at], sin[at]))
    other = Cause("wrong-pairing", "it pairs other channels (halves against neighbours)", _PAIRS)
    yield Hypothesis(other, turn(cos[places], sin[places], swapped=True))
    back = Cause("wrong-direction", "it rotates the other way", _PAIRS)
    yield Hypothesis(back, turn(cos[places], -sin[places]))
    still = Cause("missing-rope", "it does not rotate", _PAIRS)
    yield Hypothesis(still, evidence.input(0))
    yield from _fitted(turn, cos, sin)


def _fitted(turn: _Turn, cos: torch.Tensor, sin: torch.Tensor) -> Hypotheses:
    """Measure the angles that the program turned by, and say by which frequencies they are made."""
    places = turn.places
    early = (places > 0) & (places <= 3)
    if not bool(early.any()) or len(cos) < 2:
        return
    expected = torch.atan2(sin[1], cos[1])  # [half]: angle per position
    measured = turn.angles()[early] / places[early, None]  # [tokens, half]
    first = places[early] == places[early].min()
    slope = measured[first].median(0).values
    slow = (expected > 1e-4) & (expected < 0.9)  # neither noise nor beyond half a turn
    if not bool(slow.any()):
        return
    yield _by_factor(turn, expected, slope, slow)
    # a small angle is known as exactly as a large one, its logarithm is not: weights are squares
    positive = slope[slow].clamp(min=1e-9)
    index = torch.arange(len(expected), dtype=torch.float32)[slow]
    weights = positive.square()
    moment = (weights * index.square()).sum().clamp(min=1e-9)
    log_theta = float(-(weights * positive.log() * index).sum() / moment)
    half = len(expected)
    theta = math.exp(log_theta * half)
    frequencies = theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = places[:, None] * frequencies
    text = f"its base (theta) is about {theta:.3g}"
    yield Hypothesis(Cause("wrong-rope-base", text, _REMEDY), turn(angles.cos(), angles.sin()))


def _by_factor(
    turn: _Turn, expected: torch.Tensor, slope: torch.Tensor, slow: torch.Tensor
) -> Hypothesis:
    """Say that every frequency is too high or too low by the same factor."""
    factor = float((slope * expected)[slow].sum() / expected[slow].square().sum())
    angles = turn.places[:, None] * expected * factor
    text = f"every frequency is {factor:.4g} times what it should be"
    return Hypothesis(Cause("wrong-rope-factor", text, _REMEDY), turn(angles.cos(), angles.sin()))


class _Turn:
    """Rotates the operator's inputs by any angles, and reads off those that the program took."""

    def __init__(self, evidence: Evidence, heads: int, interleaved: bool, half: int) -> None:
        self._heads, self._interleaved, self._half = heads, interleaved, half
        self._x = evidence.input(0).unflatten(-1, (heads, -1))
        self._found = evidence.found.unflatten(-1, (heads, -1))
        steps = [torch.arange(o.found.shape[1]) + o.position for o in evidence.observations]
        self.places = torch.cat(steps)

    def __call__(
        self, cos: torch.Tensor, sin: torch.Tensor, *, swapped: bool = False
    ) -> torch.Tensor:
        """Return `[tokens, channels]` rotated by angles `[tokens, half]`."""
        a, b = self._pairs(self._x, swapped)
        c, s = cos.unsqueeze(1), sin.unsqueeze(1)
        first, second = a * c - b * s, b * c + a * s
        turned = (
            torch.stack([first, second], -1).flatten(-2)
            if self._interleaved != swapped
            else torch.cat([first, second], -1)
        )
        return torch.cat([turned, self._x[..., 2 * self._half :]], -1).flatten(-2)

    def angles(self) -> torch.Tensor:
        """Return the angle of every token and pair, `[tokens, half]`, from -pi to pi."""
        a, b = self._pairs(self._x, swapped=False)
        c, d = self._pairs(self._found, swapped=False)
        sine, cosine = (a * d - b * c).sum(1), (a * c + b * d).sum(1)  # over heads
        return torch.atan2(sine, cosine)

    def _pairs(self, x: torch.Tensor, swapped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        part = x[..., : 2 * self._half]
        if self._interleaved != swapped:
            return part[..., ::2], part[..., 1::2]
        return part[..., : self._half], part[..., self._half :]
