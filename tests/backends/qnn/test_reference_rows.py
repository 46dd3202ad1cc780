"""The floor of a quantised program: its 16-bit roundings made at random, nothing else."""

from __future__ import annotations

import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - registers the operators

from mobilepack.backends.qnn.reference_rows import dithered

STEP = 0.01


class Rounded(nn.Module):
    """A value rounded to as many levels as it is told."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Round to int32 and back."""
        operators = torch.ops.quantized_decomposed
        limits = (STEP, 0, -self.levels // 2, self.levels // 2 - 1, torch.int32)
        integers = operators.quantize_per_tensor.default(x, *limits)
        return operators.dequantize_per_tensor.default(integers, *limits)


def graph(levels: int) -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(Rounded(levels))


def test_sixteen_bits_are_rounded_up_or_down_at_random() -> None:
    x = torch.full((10_000,), 0.25 * STEP)
    torch.manual_seed(0)
    found = dithered(graph(65536))(x) / STEP
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    assert abs(float(found.mean()) - 0.25) < 0.02  # four standard errors
    assert torch.equal(graph(65536)(x), torch.zeros(10_000))


def test_what_lies_on_a_step_stays_there() -> None:
    x = torch.arange(-50, 50) * STEP
    torch.manual_seed(0)
    torch.testing.assert_close(dithered(graph(65536))(x), x)


def test_eight_bits_are_left_alone() -> None:
    x = torch.randn(1000) * STEP
    assert torch.equal(dithered(graph(256))(x), graph(256)(x))


def test_a_seed_gives_the_same_noise_again() -> None:
    x, moved = torch.randn(1000), dithered(graph(65536))
    torch.manual_seed(0)
    first = moved(x)
    torch.manual_seed(0)
    assert torch.equal(moved(x), first)
