"""Parameters, tables and numbers of a graph: read when they are needed, quantised once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from mobilepack.backends.qnn.encodings import (
    Code,
    Codes,
    Matrix,
    Range,
    quantise_blocks,
    quantise_matrix,
)
from mobilepack.backends.qnn.graph import Graph, Step, Tensor

_HELD_NUMBERS = 256 * 1024 * 1024
"""Of a model whose matrices stay in float32 between the calls of a quantised reference."""

_ROWS = 8192  # of a table that are turned to integers at once


class Constants:
    """The constants of every method of a model."""

    def __init__(
        self, weights: Path, shared: Mapping[str, str], tables: Mapping[str, torch.Tensor]
    ) -> None:
        """Open the weights; nothing is read yet.

        Args:
            weights: A safetensors file.
            shared: Names that are another's tensor.
            tables: What is computed, by the decoder's names.
        """
        from safetensors import safe_open

        self._file: Any = safe_open(weights, "pt")
        self._shared = dict(shared)
        self._tables = {name: tensor.float() for name, tensor in tables.items()}

    def read(self, tensor: Tensor) -> torch.Tensor:
        """Return a constant in float32."""
        if tensor.number is not None:
            return torch.tensor([tensor.number])
        if tensor.name in self._tables:
            return self._tables[tensor.name]
        found: torch.Tensor = self._file.get_tensor(self._shared.get(tensor.name, tensor.name))
        return found.float()

    def operands(self, step: Step) -> dict[str, torch.Tensor]:
        """Return a step's constants for `evaluate`, unquantised."""
        found = {t.name: self.read(t) for t in step.inputs if t.role == "constant"}
        if step.kind == "linear":
            matrix = step.inputs[1].name
            found[matrix] = found[matrix].t()
        return found

    def ranges(self, graph: Graph) -> list[tuple[str, Range]]:
        """Return the least and largest number of every constant that has an encoding."""
        found = []
        matrices = {t.name for s in graph.steps if s.kind == "linear" for t in s.inputs[1:]}
        for tensor in graph.constants():
            if tensor.name not in matrices:
                low, high = torch.aminmax(self.read(tensor))
                found.append((tensor.name, (float(low), float(high))))
        return found


class QuantisedConstants:
    """The same constants as the NPU has them."""

    def __init__(
        self,
        plain: Constants,
        wide_rows: frozenset[str],
        bits: Literal[4, 8],
        block: int = 0,
    ) -> None:
        """Quantise nothing yet.

        Args:
            plain: Where they come from.
            wide_rows: Matrices that have 8 bits whatever `bits` says.
            bits: Of every other matrix.
            block: Inputs that share a scale in matrices of 4 bits whose inputs it divides; 0 for
                one scale per output.
        """
        self.plain, self._block = plain, block
        self._wide, self._bits = wide_rows, bits
        self._matrices: dict[str, Matrix] = {}
        self._held: dict[str, torch.Tensor] = {}
        self._numbers = 0  # ever asked for

    def matrix(self, tensor: Tensor) -> Matrix:
        """Return a matrix, quantised at the first call."""
        if tensor.name not in self._matrices:
            bits, weight = self.bits(tensor), self.plain.read(tensor)
            in_blocks = bits == 4 and self._block and weight.shape[1] % self._block == 0
            made = quantise_blocks(weight, self._block) if in_blocks else None
            self._matrices[tensor.name] = made or quantise_matrix(weight, bits)
        return self._matrices[tensor.name]

    def bits(self, tensor: Tensor) -> Literal[4, 8]:
        """Return the bits of a matrix's numbers."""
        return 8 if tensor.name in self._wide else self._bits

    def operands(self, step: Step, codes: Codes) -> dict[str, torch.Tensor]:
        """Return a step's constants for `FakeQuantised`.

        Matrices are integers, biases floats; tables are rounded after the look-up.
        """
        if step.kind == "linear":
            _, matrix, *bias = step.inputs
            return {matrix.name: self._integers(matrix)} | {
                b.name: self.plain.read(b) for b in bias
            }
        return {t.name: self._vector(step, t, codes) for t in step.inputs if t.role == "constant"}

    def _vector(self, step: Step, tensor: Tensor, codes: Codes) -> torch.Tensor:
        plain = self.plain.read(tensor)
        is_table = step.kind in ("embedding", "gather")
        return plain if is_table else codes[tensor.name].rounded(plain)

    def _integers(self, tensor: Tensor) -> torch.Tensor:
        if tensor.name not in self._held:
            integers = self.matrix(tensor).signed().float()
            self._numbers += integers.numel()
            if self._numbers > _HELD_NUMBERS:
                return integers
            self._held[tensor.name] = integers
        return self._held[tensor.name]

    def forget_numbers(self) -> None:
        """Free the matrices in float32."""
        self._held.clear()

    def bias_scales(self, x: Tensor, matrix: Tensor, codes: Codes) -> torch.Tensor:
        """Return the scales of a bias: the products of those of what is multiplied."""
        return self.matrix(matrix).scales * codes[x.name].scale

    def integers(self, tensor: Tensor, code: Code) -> torch.Tensor:
        """Return a table or a vector as integers, some rows at a time."""
        plain = self.plain.read(tensor)
        if plain.dim() < 2 or math.prod(plain.shape) < _ROWS:
            return code.integers(plain)
        return torch.cat([code.integers(rows) for rows in plain.split(_ROWS)])
