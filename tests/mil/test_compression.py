"""Every form of compressed weights against coremltools' own decompression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mobilepack.mil.compressed import Compressed
from mobilepack.mil.decompress import compressed_constants
from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.program import Constant
from mobilepack.mil.rows import rows_of
from tests.mil.convert import convert, save, silent
from tests.mil.single import coremltools

pytestmark = pytest.mark.slow
Change = Callable[[Any, Any], Any]


class Net(nn.Module):
    """Two linear layers, one without bias, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 128), nn.Linear(128, 64, bias=False)
        self.c = nn.Conv2d(64, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(torch.relu(self.a(x)))[..., None, None])


def _linear(**options: Any) -> Change:
    def change(cto: Any, model: Any) -> Any:
        config = cto.OpLinearQuantizerConfig(weight_threshold=0, **options)
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))

    return change


def _palette(joint: bool = False, **options: Any) -> Change:
    def change(cto: Any, model: Any) -> Any:
        config = cto.OpPalettizerConfig(weight_threshold=0, mode="kmeans", **options)
        whole = cto.OptimizationConfig(global_config=config)
        return cto.palettize_weights(model, whole, joint_compression=joint)

    return change


def _prune(then: Change | None = None) -> Change:
    def change(cto: Any, model: Any) -> Any:
        config = cto.OpMagnitudePrunerConfig(weight_threshold=0, target_sparsity=0.5)
        pruned = cto.prune_weights(model, cto.OptimizationConfig(global_config=config))
        return pruned if then is None else then(cto, pruned)

    return change


def _joint_int8(cto: Any, model: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(weight_threshold=0, mode="linear_symmetric")
    whole = cto.OptimizationConfig(global_config=config)
    return cto.linear_quantize_weights(model, whole, joint_compression=True)


FORMS: dict[str, tuple[str, Change, str]] = {
    "int4-block": (
        "iOS18",
        _linear(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32),
        "constexpr_blockwise_shift_scale",
    ),
    "uint4-block": (
        "iOS18",
        _linear(mode="linear", dtype="uint4", granularity="per_block", block_size=16),
        "constexpr_blockwise_shift_scale",
    ),
    "int8-channel": (
        "iOS18",
        _linear(mode="linear_symmetric", dtype="int8"),
        "constexpr_blockwise_shift_scale",
    ),
    "uint8-ios16": (
        "iOS16",
        _linear(mode="linear", dtype="uint8"),
        "constexpr_affine_dequantize",
    ),
    **{
        f"palette-{bits}": ("iOS18", _palette(nbits=bits), "constexpr_lut_to_dense")
        for bits in (1, 2, 3, 4, 6, 8)
    },
    "palette-ios16": ("iOS16", _palette(nbits=4), "constexpr_lut_to_dense"),
    "palette-groups": (
        "iOS18",
        _palette(nbits=4, granularity="per_grouped_channel", group_size=16),
        "constexpr_lut_to_dense",
    ),
    "palette-groups-of-inputs": (
        "iOS18",
        _palette(nbits=3, granularity="per_grouped_channel", group_size=8, channel_axis=1),
        "constexpr_lut_to_dense",
    ),
    "palette-scaled": (
        "iOS18",
        _palette(
            nbits=4, granularity="per_grouped_channel", group_size=16, enable_per_channel_scale=True
        ),
        "constexpr_blockwise_shift_scale",
    ),
    "palette-vectors": ("iOS18", _palette(nbits=4, cluster_dim=4), "constexpr_lut_to_dense"),
    "sparse": ("iOS18", _prune(), "constexpr_sparse_to_dense"),
    "sparse-ios16": ("iOS16", _prune(), "constexpr_sparse_to_dense"),
    "sparse-palette": ("iOS18", _prune(_palette(joint=True, nbits=4)), "constexpr_lut_to_sparse"),
    "sparse-int8": ("iOS18", _prune(_joint_int8), "constexpr_sparse_blockwise_shift_scale"),
}


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    torch.manual_seed(0)
    net = Net()
    return {
        system: convert(net, (torch.randn(1, 64),), system=system) for system in ("iOS16", "iOS18")
    }


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_decompressed_as_coremltools_does(
    form: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    coremltools()
    import coremltools.optimize.coreml as cto

    system, change, operator = FORMS[form]
    with silent():
        model = change(cto, plain[system])
        whole = cto.decompress_weights(model)
    path = save(model, tmp_path / "small.mlpackage")
    reference = save(whole, tmp_path / "whole.mlpackage")
    ours, theirs = open_mlpackage(path), open_mlpackage(reference)
    assert operator in {op.type for op in ours.functions["main"].block.walk()}
    assert _weights(ours).keys() >= {(128, 64), (64, 128), (32, 64, 1, 1)}
    for shape, weight in _weights(theirs).items():
        assert np.array_equal(_weights(ours)[shape], weight), shape
    x = {"x": torch.randn(1, 64)}
    result, wanted = (next(iter(Interpreter(p).run(x).values())) for p in (ours, theirs))
    assert torch.equal(result, wanted)


BY_ROWS = ("int4-block", "uint4-block", "int8-channel", "uint8-ios16", "palette-groups")


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_a_weight_are_those_of_the_whole(
    form: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    coremltools()
    system, change, _ = FORMS[form]
    with silent():
        import coremltools.optimize.coreml as cto

        path = save(change(cto, plain[system]), tmp_path / "small.mlpackage")
    read = 0
    for weight in compressed_constants(open_mlpackage(path).functions["main"]):
        rows = rows_of(weight.source)
        if rows is not None:
            whole = weight.load().float().flatten(1)
            wide = torch.empty(9, whole.shape[1])
            rows.read(3, wide)
            assert torch.equal(wide, whole[3:12])
            read += 1
    assert read == 3 or form not in BY_ROWS


def _weights(program: Any) -> dict[tuple[int, ...], np.ndarray]:
    """Return every weight of two or more axes as the program computes with it, by its shape."""
    constants: dict[str, Constant] = {}
    compressed: dict[str, tuple[Compressed, int]] = {}
    found: dict[tuple[int, ...], np.ndarray] = {}
    function = program.functions["main"]
    for operation in function.block.operations:
        if operation.type == "const":
            constants[operation.name] = operation.attributes["val"]
            array = operation.attributes["val"]
            if len(array.type.shape) >= 2:
                found[array.type.sizes] = array.array().astype("f4")
        elif operation.is_constant:
            source = Compressed(operation, function.opset, compressed, constants)
            for index, output in enumerate(operation.outputs):
                compressed[output.name] = (source, index)
            tensor = source.outputs()[-1]
            if tensor.dim() >= 2:
                found[tuple(tensor.shape)] = tensor.float().numpy()
    return found
