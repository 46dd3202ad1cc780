"""Converted torch modules against torch itself: operators that coremltools cannot evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from tests.mil.convert import convert, save

pytestmark = pytest.mark.slow


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def _image(channels: int = 4, size: int = 9) -> torch.Tensor:
    return torch.randn(2, channels, size, size)


# name → (module, arguments, an operator that the program must then have)
MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, ...]], str]] = {
    "conv": (
        lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        lambda: (_image(),),
        "conv",
    ),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=2), lambda: (torch.randn(2, 4, 9),), "conv"),
    "conv-same": (lambda: nn.Conv2d(4, 6, 4, padding="same"), lambda: (_image(),), "conv"),
    "conv-transpose": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        lambda: (_image(),),
        "conv_transpose",
    ),
    "max-pool": (
        lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        lambda: (_image(4, 8),),
        "max_pool",
    ),
    "avg-pool": (
        lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        lambda: (_image(),),
        "avg_pool",
    ),
    "avg-pool-ceil": (
        lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
        lambda: (_image(4, 8),),
        "avg_pool",
    ),
    "batch-norm": (
        lambda: nn.Sequential(nn.Identity(), nn.BatchNorm2d(4)),
        lambda: (_image(),),
        "batch_norm",
    ),
    "group-norm": (lambda: nn.GroupNorm(2, 4), lambda: (_image(),), "reshape"),
    "instance-norm": (
        lambda: nn.InstanceNorm2d(4, affine=True),
        lambda: (_image(),),
        "instance_norm",
    ),
    "layer-norm": (lambda: nn.LayerNorm(9), lambda: (_image(),), "layer_norm"),
    "silu": (nn.SiLU, lambda: (_image(),), "silu"),
    "pixel-shuffle": (lambda: nn.PixelShuffle(2), lambda: (_image(),), "pixel_shuffle"),
    "pixel-unshuffle": (
        lambda: nn.PixelUnshuffle(3),
        lambda: (_image(),),
        "pixel_unshuffle",
    ),
    "bilinear": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        lambda: (_image(),),
        "upsample_bilinear",
    ),
    "bilinear-corners": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        lambda: (_image(),),
        "upsample_bilinear",
    ),
    "nearest": (
        lambda: nn.Upsample(scale_factor=2),
        lambda: (_image(),),
        "upsample_nearest_neighbor",
    ),
    "one-hot": (
        lambda: Fn(lambda x: functional.one_hot(x, 7).float()),
        lambda: (torch.randint(0, 7, (2, 3)),),
        "one_hot",
    ),
    "index-put": (
        lambda: Fn(lambda x, i, v: x.index_put((i,), v)),
        lambda: (torch.randn(6, 3), torch.tensor([4, 1]), torch.randn(2, 3)),
        "scatter_nd",
    ),
    "scatter": (
        lambda: Fn(lambda x, i, v: x.scatter(1, i, v)),
        lambda: (torch.randn(3, 5), torch.tensor([[0], [3], [1]]), torch.randn(3, 1)),
        "scatter_along_axis",
    ),
    "scatter-add": (
        lambda: Fn(lambda x, i, v: x.scatter_add(1, i, v)),
        lambda: (torch.randn(3, 5), torch.tensor([[0, 0], [3, 1], [1, 1]]), torch.randn(3, 2)),
        "scatter_along_axis",
    ),
    "cumsum": (lambda: Fn(lambda x: x.cumsum(1)), lambda: (_image(),), "cumsum"),
    "attention": (
        lambda: Fn(functional.scaled_dot_product_attention),
        lambda: tuple(torch.randn(1, 2, 5, 8) for _ in range(3)),
        "scaled_dot_product_attention",
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_converted_module_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, arguments, operator = MODULES[name]
    module, given = make().eval(), arguments()
    if name == "batch-norm":
        module[1].running_mean.uniform_(-1, 1)  # type: ignore[index, union-attr, operator]
        module[1].running_var.uniform_(0.5, 2)  # type: ignore[index, union-attr, operator]
    path = save(convert(module, given, half=False), tmp_path / "m.mlpackage")
    runner = Interpreter(open_mlpackage(path))
    function = runner.function()
    used = {op.type for op in function.block.walk()}
    assert operator in used, used
    inputs = {item.name: value for item, value in zip(function.tensors, given, strict=True)}
    (result,) = runner.run(inputs).values()
    wanted = module(*given)
    # fp32 on both sides: sums of at most 162 terms of size about 1 in different orders.
    assert torch.allclose(result.to(wanted.dtype), wanted, rtol=2e-5, atol=2e-5)


class Recurrent(nn.Module):
    """An LSTM or RNN that returns everything it computes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_converted_lstm_computes_what_torch_computes(both_ways: bool, tmp_path: Path) -> None:
    from tests.mil.convert import silent
    from tests.mil.single import coremltools

    ct, _, _ = coremltools()
    torch.manual_seed(0)
    module = Recurrent(nn.LSTM(5, 7, bidirectional=both_ways)).eval().requires_grad_(False)
    x = torch.randn(4, 2, 5)
    with silent():
        model = ct.convert(
            torch.jit.trace(module, x),
            inputs=[ct.TensorType("x", x.shape)],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
    runner = Interpreter(open_mlpackage(save(model, tmp_path / "m.mlpackage")))
    assert "lstm" in {op.type for op in runner.function().block.walk()}
    (result,) = runner.run({"x": x}).values()
    assert torch.allclose(result, module(x), rtol=1e-5, atol=1e-5)
