"""Choosing the next token."""

from __future__ import annotations

import numpy as np

from mobilepack.harness.runner import Logits, greedy


class Sampler:
    """Greedy, or temperature and nucleus sampling with a seeded generator.

    The order is Hugging Face's: logits are divided by the temperature, then the smallest set of
    most probable tokens that holds at least `top_p` of the probability is kept.
    """

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._rng = np.random.default_rng(seed)

    def __call__(self, logits: Logits) -> int:
        """Return the chosen id from logits [V]."""
        if self._temperature == 0:
            return greedy(logits)
        wide = logits.astype(np.float64) / self._temperature
        weights = np.exp(wide - wide.max())
        weights /= weights.sum()
        if self._top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            weights[order[before >= self._top_p]] = 0.0
            weights /= weights.sum()
        return int(self._rng.choice(len(weights), p=weights))
