"""The runner's own kernels, one by one, against ExecuTorch's, which need libtorch."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilepack.harness.native.build import RUNNER, compile_runner, toolchain
from tests.harness.parts import provisioned

__all__ = ["provisioned"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
Call = Callable[..., Any]
NONE = "-1"


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """Compile what calls one kernel; return a function that calls it."""
    folder = tmp_path_factory.mktemp("kernels")
    compile_runner(folder, toolchain("x86_64"), [Path(__file__).with_name("kernels_main.cpp")])

    def run(kernel: str, *tensors: Any, start: int = 0, causal: bool = False,
            scale: float | None = None) -> Any:  # fmt: skip
        head = f"{kernel} {start} {int(causal)} {'nan' if scale is None else repr(scale)}"
        (folder / "in").write_text("\n".join([head, *map(_text, tensors)]))
        argv = [folder / RUNNER, folder / "in"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            return done.returncode
        bits = [int(line, 16) for line in done.stdout.split()]
        return np.array(bits, dtype=np.uint32).view(np.float32)

    return run


def _text(tensor: Any) -> str:
    if tensor is None:
        return NONE
    values = " ".join(repr(float(value)) for value in tensor.flatten())
    return f"{tensor.ndim} {' '.join(map(str, tensor.shape))} {values}"


@pytest.fixture(scope="module")
def ops() -> Any:
    """ExecuTorch's own operators for PyTorch."""
    import executorch
    import torch

    root = Path(next(iter(executorch.__path__)))
    torch.ops.load_library(next(root.glob("extension/llm/custom_ops/libcustom_ops_aot_lib.*")))
    return torch.ops.llama


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sliding(queries: int, keys: int, start: int, window: int) -> Any:
    """A mask of 0 and -inf: each query sees so many keys, its own position the last."""
    where = np.arange(keys)[None] - (start + np.arange(queries))[:, None]
    return np.where((where <= 0) & (where > -window), 0.0, -np.inf).astype(np.float32)


@pytest.mark.parametrize(
    ("queries", "start", "heads", "groups", "mask", "scale"),
    [
        (1, 0, 4, 4, None, None),
        (7, 0, 4, 2, None, None),
        (5, 6, 6, 2, None, 0.3),
        (1, 11, 9, 3, None, None),
        (5, 6, 6, 2, "window", None),
        (8, 0, 4, 1, "window", 0.5),
        (6, 3, 4, 2, "bias", None),
    ],
)
def test_attention_is_torch_s(
    call: Call, ops: Any, queries: int, start: int, heads: int, groups: int, mask: str | None,
    scale: float | None,
) -> None:  # fmt: skip
    """Within 4 roundings of a float32 per key: both add up the same products in other orders."""
    import torch

    keys, channels = 12, 16
    q = draw(1, queries, heads, channels, seed=1)
    k, v = (draw(1, keys, groups, channels, seed=seed) for seed in (2, 3))
    masks = {
        None: None,
        "window": sliding(queries, keys, start, 4),
        "bias": draw(queries, keys, seed=4) + sliding(queries, keys, start, keys),
    }
    chosen = masks[mask]
    found = call("custom_sdpa", q, k, v, chosen, start=start, causal=chosen is None, scale=scale)
    given = None if chosen is None else torch.from_numpy(chosen)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    expected = ops.custom_sdpa(*tensors, start, given, 0.0, chosen is None, scale).numpy().flatten()
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * keys * 2.0**-24 * np.abs(v).max())


@pytest.mark.parametrize(("count", "start"), [(1, 0), (5, 3), (3, 9)])
def test_the_cache_is_torch_s_to_the_last_bit(call: Call, ops: Any, count: int, start: int) -> None:
    import torch

    value, cache = draw(1, count, 2, 8, seed=5), draw(1, 12, 2, 8, seed=6)
    found = call("update_cache", value, cache, None, start=start)
    expected = torch.from_numpy(cache.copy())
    ops.update_cache(torch.from_numpy(value), expected, start)
    np.testing.assert_array_equal(found, expected.numpy().flatten())


def test_a_ring_of_positions_is_torch_s(call: Call, ops: Any) -> None:
    import torch

    value, cache = draw(1, 5, 2, 8, seed=7), draw(1, 6, 2, 8, seed=8)
    indices = np.array([[4, 5, 0, 1, 2]], dtype=np.int64)
    found = call("update_cache", value, cache, indices, start=10)
    expected = torch.from_numpy(cache.copy())
    ops.update_cache_with_indices(torch.from_numpy(value), expected, 10, torch.from_numpy(indices))
    np.testing.assert_array_equal(found, expected.numpy().flatten())


def test_what_does_not_fit_is_an_error_and_no_crash(call: Call) -> None:
    invalid = 0x12  # executorch::runtime::Error::InvalidArgument
    value, cache = draw(1, 5, 2, 8), draw(1, 6, 2, 8)
    assert call("update_cache", value, cache, None, start=2) == invalid
    assert call("update_cache", value, cache, None, start=-1) == invalid
    outside = np.array([[0, 1, 2, 3, 6]], dtype=np.int64)
    assert call("update_cache", value, cache, outside) == invalid
    q, k = draw(1, 2, 4, 8), draw(1, 6, 3, 8)  # 4 heads over 3 groups
    assert call("custom_sdpa", q, k, k, None, causal=True) == invalid
    k = draw(1, 6, 2, 8)
    assert call("custom_sdpa", q, k, k, None, start=5, causal=True) == invalid
    assert call("custom_sdpa", q, k, k, draw(3, 6), start=0) == invalid
