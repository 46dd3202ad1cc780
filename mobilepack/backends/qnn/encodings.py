"""How a graph is quantised: which tensors share an encoding, from which ranges, and the weights.

Everything has 16 bits but linear maps (4 or 8 bits and a scale per row), the head (8 bits) and the
KV cache (8 bits, centred). A step that only moves numbers keeps their encoding; each layer's keys
have one from where they are converted to where they are read, and so have its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from mobilepack.backends.qnn.graph import MOVES, Graph, Tensor
from mobilepack.contract.manifest import Encoding

Range = tuple[float, float]

HEAD = "head.weight"
"""The matrix that has 8 bits whatever the recipe says."""

_LEAST_WIDTH = 1e-4
"""Of a range: below it a scale would be nothing but noise (ExecuTorch's least, at 16 bits)."""


@dataclass(frozen=True, slots=True)
class Code:
    """Integers that stand for the numbers of a tensor.

    Attributes:
        bits: 16 or 8; unsigned.
    """

    scale: float
    zero_point: int
    bits: Literal[8, 16]

    @property
    def largest(self) -> int:
        """The largest integer; the least is 0."""
        return int(2**self.bits - 1)

    @property
    def encoding(self) -> Encoding:
        """As the manifest has it."""
        return Encoding(scale=self.scale, zero_point=self.zero_point)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """Return the numbers that come back from the integers."""
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, 0, self.largest
        )

    def integers(self, x: torch.Tensor) -> torch.Tensor:
        """Return the integers, uint8 or uint16."""
        found = torch.round(x / self.scale + self.zero_point).clamp(0, self.largest)
        return found.to(torch.int32).to(torch.uint8 if self.bits == 8 else torch.uint16)


def code_of(low: float, high: float, bits: Literal[8, 16]) -> Code:
    """Return the integers for a range, which is widened to contain 0.

    Zero points of 16 bits are whole multiples of 256 (or at an end), those of 8 bits are 128: the
    HTP drops the lower 8 bits of its accumulators, and also of what a zero point adds to them, so
    that others cost every channel an error of its own (`fake_quantised.py`).
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 8:
        return Code(max(-low / 128, high / 127, _LEAST_WIDTH / 255), 128, 8)
    width = max(high - low, _LEAST_WIDTH)
    if low == 0:
        return Code(width / 65535, 0, 16)
    if high == 0:
        return Code(width / 65535, 65535, 16)
    zero = min(max(round(-low / width * 256), 1), 255) * 256
    return Code(max(-low / zero, high / (65535 - zero)), zero, 16)


Coding = Callable[[float, float, Literal[8, 16]], Code]


class Groups:
    """Which tensors share an encoding."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        """Join what a model's graphs only move about; some lengths need fewer steps."""
        self._parents: dict[str, str] = {}
        for step in (step for graph in graphs for step in graph.steps):
            if step.kind in MOVES:
                for tensor in step.inputs:
                    if tensor.dtype == "float32":
                        self._join(step.output.name, tensor.name)
        self._caches = {self.of(t.name) for t in graphs[0].outputs[1:]}

    def of(self, name: str) -> str:
        """Return the name that stands for a tensor's group."""
        while name in self._parents:
            name = self._parents[name]
        return name

    def _join(self, one: str, other: str) -> None:
        a, b = self.of(one), self.of(other)
        if a != b:
            self._parents[a] = b

    def bits(self, name: str) -> Literal[8, 16]:
        """Return the bits of a tensor's integers."""
        return 8 if self.of(name) in self._caches else 16


class Codes:
    """The encoding of every float tensor of a method, whatever its length."""

    def __init__(
        self, groups: Groups, ranges: Mapping[str, Range], coding: Coding = code_of
    ) -> None:
        """Make them from the ranges of groups."""
        self._groups = groups
        self._codes = {name: coding(*found, groups.bits(name)) for name, found in ranges.items()}

    def __getitem__(self, name: str) -> Code:
        return self._codes[self._groups.of(name)]


class Ranges:
    """The least and largest value that each group was seen with."""

    def __init__(self, groups: Groups, known: Iterable[tuple[str, Range]]) -> None:
        """Begin with ranges that no text decides."""
        self._groups = groups
        self.found: dict[str, Range] = {}
        for name, (low, high) in known:
            self.add(name, low, high)

    def see(self, tensor: Tensor, value: torch.Tensor) -> None:
        """Widen a tensor's group by what it holds."""
        low, high = torch.aminmax(value)
        self.add(tensor.name, float(low), float(high))

    def add(self, name: str, low: float, high: float) -> None:
        """Widen a tensor's group."""
        group = self._groups.of(name)
        before = self.found.get(group, (low, high))
        self.found[group] = (min(before[0], low), max(before[1], high))


@dataclass(frozen=True, slots=True)
class Matrix:
    """A quantised linear map.

    Attributes:
        integers: int8 [inputs, outputs], as QNN wants them: of 4 bits the upper half is 0.
        scales: float32 [outputs].
        bits: 4 or 8; symmetric, the least integer is left out.
        block_scales: uint8 [outputs, blocks] of 1 to 16: by what each block of inputs is multiplied
            before the scale; None where a whole output has one scale.
    """

    integers: torch.Tensor
    scales: torch.Tensor
    bits: Literal[4, 8]
    block_scales: torch.Tensor | None = None

    def signed(self) -> torch.Tensor:
        """Return the integers that are multiplied, with their signs, int8 [inputs, outputs].

        Those in blocks are expanded to 8 bits, as the HTP does it.
        """
        signed = (self.integers ^ 8) - 8 if self.bits == 4 else self.integers
        if self.block_scales is None:
            return signed
        size = len(signed) // self.block_scales.shape[1]
        return signed * self.block_scales.t().repeat_interleave(size, 0).to(torch.int8)


_BLOCK_STEPS = 16  # of a block's scale: 4 bits, 1 to 16 (ExecuTorch's PerBlockParamObserver)


def quantise_blocks(weight: torch.Tensor, block: int) -> Matrix:
    """Quantise `[outputs, inputs]` to 4 bits with a scale per output and one per block of inputs.

    Qualcomm calls it LPBQ: a block's scale is a whole number of sixteenths of its output's largest.

    Args:
        block: Inputs of a block; divides them.
    """
    blocks = weight.view(len(weight), -1, block)
    wanted = (blocks.abs().amax(2) / 7).clamp_min(_LEAST_WIDTH / 65535)
    scales = wanted.amax(1) / _BLOCK_STEPS
    steps = torch.ceil(wanted / scales[:, None] - 1e-4).clamp(1, _BLOCK_STEPS)
    integers = torch.round(blocks / (steps * scales[:, None])[..., None]).clamp(-7, 7)
    turned = integers.view(weight.shape).to(torch.int8).t().contiguous()
    return Matrix(turned & 15, scales, 4, steps.to(torch.uint8))


def quantise_matrix(weight: torch.Tensor, bits: Literal[4, 8]) -> Matrix:
    """Quantise `[outputs, inputs]` with a scale per output, by its largest number."""
    largest = 2 ** (bits - 1) - 1
    scales = (weight.abs().amax(1) / largest).clamp_min(_LEAST_WIDTH / 65535)
    integers = torch.round(weight / scales[:, None]).clamp(-largest, largest)
    turned = integers.to(torch.int8).t().contiguous()
    return Matrix(turned & 15 if bits == 4 else turned, scales, bits)
