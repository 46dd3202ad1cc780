"""Wanda: zero the weights that matter least, by their size and the size of what they are fed.

Sun et al. 2023 (arXiv 2306.11695), section 3: the score of a weight is |W_ij| times the norm of
input channel j; the lowest scores of each output row are pruned, or the lowest N of every M
neighbours. The rest is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilepack.contract.compression import Sparsity
from mobilepack.models.source import Source, View

if TYPE_CHECKING:
    import torch


def prune_rows(rows: torch.Tensor, norms: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
    """Return float32 `[rows, columns]` with its least important weights at zero.

    Args:
        rows: Weights; not changed.
        norms: Norm of each input channel, `[columns]`.
        sparsity: How many.
    """
    scores = rows.abs() * norms
    if sparsity.of:
        scores = scores.unflatten(1, (-1, sparsity.of))
        lowest = scores.topk(sparsity.zeros, -1, largest=False).indices
    else:
        count = int(rows.shape[1] * sparsity.share)
        lowest = scores.topk(count, -1, largest=False).indices
    kept = scores.new_ones(scores.shape).scatter_(-1, lowest, 0.0)
    return rows * kept.view(rows.shape)


class Sparse(View):
    """Weights of which those are zero that Wanda chose.

    The choice follows from a weight and the norms of its inputs, so only these are kept.
    """

    def __init__(self, base: Source, sparsity: Sparsity) -> None:
        super().__init__(base)
        self._sparsity = sparsity
        self._norms: dict[str, torch.Tensor] = {}

    def takes(self, name: str) -> bool:
        """Say whether a weight is pruned: the blocks' are, where whole groups of M fit."""
        columns = self.shape(name)[-1]
        fits = not self._sparsity.of or columns % self._sparsity.of == 0
        return name.startswith("layers.") and len(self.shape(name)) == 2 and fits

    def see(self, name: str, norms: torch.Tensor) -> None:
        """Prune a weight from now on, by the norms of its input channels `[columns]`.

        A weight that several blocks share is pruned by what all of them feed it.
        """
        before = self._norms.get(name)
        self._norms[name] = norms if before is None else before.hypot(norms)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive)."""
        found = super().rows(name, start, stop)
        norms = self._norms.get(name)
        return found if norms is None else prune_rows(found, norms, self._sparsity)

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same numbers."""
        return super().identity(name) + (f" pruned as {name}" if name in self._norms else "")

    def zero_share(self, weights: list[str]) -> float:
        """Return the share of zeros among the numbers of some matrices."""
        total = sum(self.shape(name)[0] * self.shape(name)[1] for name in weights)
        zeros = 0
        for name in self._norms:
            count, columns = self.shape(name)
            each = int(columns * self._sparsity.share)
            if self._sparsity.of:
                each = columns // self._sparsity.of * self._sparsity.zeros
            zeros += count * each
        return zeros / total
