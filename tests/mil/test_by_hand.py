"""Operators that coremltools neither evaluates (rightly) nor emits from torch: worked by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from mobilepack.mil.ops import OPERATORS
from mobilepack.mil.types import DType
from tests.mil.single import Call, ours

F32 = DType.FLOAT32


def _run(name: str, tensors: dict[str, Any], constants: dict[str, Any]) -> np.ndarray:
    return ours(Call(name, tensors, constants), [(None, F32)])[0]


def _counting(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


def test_concat_interleaves() -> None:
    # coremltools' own evaluation ignores `interleave`.
    a, b = _counting(1, 2, 2), 10 + _counting(1, 2, 2)
    result = _run("concat", {"values": (a, b)}, {"axis": 1, "interleave": True})
    assert result.tolist() == [[[0, 1], [10, 11], [2, 3], [12, 13]]]


SCATTERED = {
    "update": [9, 2, 7], "add": [9, 2, 13], "sub": [-7, 2, -1], "mul": [8, 2, 42],
    "div": [1 / 8, 2, 6 / 7], "max": [8, 2, 7], "min": [1, 2, 6],
}  # fmt: skip


@pytest.mark.parametrize("mode", SCATTERED)
@pytest.mark.parametrize("name", ["scatter", "scatter_nd", "scatter_along_axis"])
def test_scatter_combines_in_every_mode(name: str, mode: str) -> None:
    # coremltools' own evaluation replaces in every mode.
    data, updates = np.array([1, 2, 6], "f4"), np.array([8, 7], "f4")
    indices = np.array([0, 2], "i4")
    wanted = [8.0 if mode == "update" else SCATTERED[mode][0], *SCATTERED[mode][1:]]
    if name == "scatter_nd":
        tensors = {"data": data, "indices": indices[:, None], "updates": updates}
        constants: dict[str, Any] = {"mode": mode}
    else:
        tensors = {"data": data, "indices": indices, "updates": updates}
        constants = {"mode": mode, "axis": 0}
    np.testing.assert_allclose(_run(name, tensors, constants), np.array(wanted, "f4"), rtol=2e-7)


def test_scatter_adds_slices_along_an_axis_in_order() -> None:
    data, updates = np.zeros((2, 3), "f4"), _counting(2, 2)
    tensors = {"data": data, "indices": np.array([2, 2], "i4"), "updates": updates}
    assert _run("scatter", tensors, {"axis": 1, "mode": "add"}).tolist() == [[0, 0, 1], [0, 0, 5]]


def test_gather_nd_takes_slices_of_each_batch() -> None:
    x, indices = _counting(2, 3, 2), np.array([[[2], [0]], [[1], [1]]], "i4")
    result = _run("gather_nd", {"x": x, "indices": indices}, {"batch_dims": 1})
    assert result.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    whole = _run("gather_nd", {"x": x, "indices": np.array([[1, 2], [0, 1]], "i4")}, {})
    assert whole.tolist() == [[10, 11], [2, 3]]


def test_gather_takes_rows_of_each_batch() -> None:
    x, indices = _counting(2, 3), np.array([[2, 0], [1, 1]], "i4")
    result = _run("gather", {"x": x, "indices": indices}, {"axis": 1, "batch_dims": 1})
    assert result.tolist() == [[2, 0], [4, 4]]


def test_space_and_depth_are_exchanged() -> None:
    x = _counting(1, 2, 4, 6)
    deep = _run("space_to_depth", {"x": x}, {"block_size": 2})
    for c, h, w in itertools.product(range(8), range(2), range(3)):
        block, channel = divmod(c, 2)
        row, column = divmod(block, 2)
        assert deep[0, c, h, w] == x[0, channel, 2 * h + row, 2 * w + column]
    assert np.array_equal(_run("depth_to_space", {"x": deep}, {"block_size": 2}), x)


def test_space_and_batch_are_exchanged() -> None:
    x = _counting(1, 1, 3, 4)
    shape = {"block_shape": np.array([2, 2], "i4")}
    pads = {**shape, "paddings": np.array([[1, 0], [0, 0]], "i4")}
    parts = _run("space_to_batch", {"x": x}, pads)
    assert parts.shape == (4, 1, 2, 2)
    assert parts[0, 0].tolist() == [[0, 0], [4, 6]]  # the row of padding, then row 1
    assert parts[3, 0].tolist() == [[1, 3], [9, 11]]
    crops = {**shape, "crops": np.array([[1, 0], [0, 0]], "i4")}
    assert np.array_equal(_run("batch_to_space", {"x": parts}, crops), x)


def test_windows_slide() -> None:
    result = _run("sliding_windows", {"x": _counting(5)}, {"axis": 0, "size": 3, "stride": 2})
    assert result.tolist() == [[0, 1, 2], [2, 3, 4]]


def test_a_sequence_is_reversed_up_to_its_length() -> None:
    tensors = {"x": _counting(2, 3), "lengths": np.array([2, 3], "i4")}
    result = _run("reverse_sequence", tensors, {"seq_axis": 1, "batch_axis": 0})
    assert result.tolist() == [[1, 0, 2], [5, 4, 3]]


def test_a_border_is_cropped() -> None:
    result = _run(
        "crop", {"x": _counting(1, 1, 4, 4)}, {"crop_height": (1, 1), "crop_width": (0, 3)}
    )
    assert result.tolist() == [[[[4], [8]]]]


def test_reshape_takes_pieces_of_other_shapes() -> None:
    tensors = {"x": _counting(6), "ref_tensors": (_counting(2, 5), _counting(7, 3))}
    counts = {
        "begins": (np.int32(0), np.int32(1)),
        "ends": (np.int32(1), np.int32(0)),
        "end_masks": (np.bool_(False), np.bool_(True)),
    }
    result = _run("reshape_like", {**tensors, **counts}, {})
    assert result.shape == (2, 3)


# Where each mode samples an axis of 4 for 8 places (first three; coremltools, resize_bilinear).
GRIDS = {
    "STRICT_ALIGN_CORNERS": [0, 3 / 7, 6 / 7],
    "ALIGN_CORNERS": [0, 3 / 7, 6 / 7],
    "DEFAULT": [0, 0.5, 1],
    "OFFSET_CORNERS": [3 / 16, 9 / 16, 15 / 16],
    "UNALIGN_CORNERS": [0, 0.25, 0.75],
}


@pytest.mark.parametrize("mode", GRIDS)
@pytest.mark.parametrize("name", ["resize", "resize_bilinear"])
def test_an_image_is_sampled_where_the_mode_says(name: str, mode: str) -> None:
    x = _counting(1, 1, 1, 4)
    sizes: dict[str, Any] = {"target_size_height": 1, "target_size_width": 8}
    if name == "resize":
        sizes = {"shape": [0, 8], "resized_dims": 2, "interpolation_mode": "LINEAR"}
    result = _run(name, {"x": x}, {**sizes, "sampling_mode": mode})
    np.testing.assert_allclose(result[0, 0, 0, :3], GRIDS[mode], rtol=1e-6)


def test_nearest_resizing_repeats() -> None:
    sizes = {"target_size_height": 1, "target_size_width": 6}
    result = _run("resize_nearest_neighbor", {"x": _counting(1, 1, 1, 3)}, sizes)
    assert result.tolist() == [[[[0, 0, 1, 1, 2, 2]]]]


def test_neighbouring_channels_normalise() -> None:
    x = np.array([1, 2, 3], "f4").reshape(1, 3, 1)
    constants = {"size": 3, "alpha": np.float32(3), "beta": np.float32(1), "k": np.float32(1)}
    result = _run("local_response_norm", {"x": x}, constants)
    np.testing.assert_allclose(result.ravel(), [1 / 6, 2 / 15, 3 / 14], rtol=1e-6)


def test_the_l2_pool_is_the_root_of_squares() -> None:
    constants = {"kernel_sizes": (2,), "strides": (2,), "pad_type": "valid"}
    result = _run("l2_pool", {"x": np.array([[[3, 4, 6, 8]]], "f4")}, constants)
    np.testing.assert_allclose(result.ravel(), [5, 10], rtol=1e-6)


def test_quantised_values_are_restored() -> None:
    constants = {
        "scale": np.array([0.5, 2], "f4"),
        "zero_point": np.array([1, -1], "i1"),
        "axis": 0,
    }
    x = np.array([[3, 1], [3, -2]], "i1")
    assert _run("dequantize", {"input": x}, constants).tolist() == [[1, 0], [8, -2]]


def test_a_simple_recurrent_layer_steps_through_a_sequence() -> None:
    constants = {
        "weight_ih": np.array([[1.0]], "f4"),
        "weight_hh": np.array([[0.5]], "f4"),
        "activation": "relu",
        "output_sequence": True,
    }
    x, h = np.array([1, 2, 4], "f4").reshape(3, 1, 1), np.zeros((1, 1), "f4")
    for direction, wanted in (("forward", [1, 2.5, 5.25]), ("reverse", [3, 4, 4])):
        call = Call("rnn", {"x": x, "initial_h": h}, {**constants, "direction": direction})
        states, last = ours(call, [((3, 1, 1), F32), ((1, 1), F32)])
        assert states.ravel().tolist() == wanted
        assert last.ravel().tolist() == [wanted[-1] if direction == "forward" else wanted[0]]


def test_every_operator_of_the_table_is_tested_somewhere() -> None:
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert [name for name in OPERATORS if f'"{name}"' not in text] == []
