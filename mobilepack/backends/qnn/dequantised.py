"""The numbers that a quantised program's matrices stand for."""

from __future__ import annotations

from typing import Literal

import torch

from mobilepack.backends.qnn.encodings import HEAD, Matrix, quantise_blocks, quantise_matrix
from mobilepack.models.source import Source, View


class Dequantised(View):
    """A checkpoint's weights as they are after the recipe's rounding; all but matrices stay."""

    def __init__(
        self, base: Source, matrices: frozenset[str], bits: Literal[4, 8], block: int
    ) -> None:
        """Round nothing yet; see `QuantisedConstants`."""
        super().__init__(base)
        self._matrices, self._bits, self._block = matrices, bits, block

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows; a row is rounded on its own."""
        plain = self._base.rows(name, start, stop)
        if name not in self._matrices:
            return plain
        made = self._quantised(name, plain)
        return (made.signed().float() * made.scales).t().contiguous()

    def _quantised(self, name: str, plain: torch.Tensor) -> Matrix:
        bits: Literal[4, 8] = 8 if name == HEAD else self._bits
        if bits == 4 and self._block and plain.shape[1] % self._block == 0:
            return quantise_blocks(plain, self._block)
        return quantise_matrix(plain, bits)
