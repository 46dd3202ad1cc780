"""Random calls of operators that move elements: all must agree in every bit."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.mil.cases import (
    FLOATS,
    Draw,
    axis_of,
    broadcasting,
    case,
    numbers,
    shapes,
    spread_values,
)
from tests.mil.single import Call

ANY = st.sampled_from(["f4", "f2", "i4", "?"])


@case("cast")
def _(draw: Draw) -> Call:
    target = draw(st.sampled_from(["fp16", "fp32", "int32", "bool", "int8", "uint8", "int16"]))
    low = 0 if target == "uint8" else -100
    return Call("cast", {"x": numbers(draw, draw(shapes()), "f4", low, 100)}, {"dtype": target})


@case("select")
def _(draw: Draw) -> Call:
    shape, dtype = draw(shapes()), draw(FLOATS)
    cond = numbers(draw, broadcasting(draw, shape), "?")
    a, b = numbers(draw, shape, dtype), numbers(draw, shape, dtype)
    return Call("select", {"cond": cond, "a": a, "b": b}, {})


@case("reshape")
def _(draw: Draw) -> Call:
    shape = draw(shapes(2, 4))
    target = draw(st.sampled_from([(-1,), (0, -1), (int(np.prod(shape)), 1)]))
    opset = "iOS16" if 0 in target and len(target) == len(shape) else "iOS18"
    if opset == "iOS18" and 0 in target:
        target = (-1, 0)
    return Call("reshape", {"x": numbers(draw, shape)}, {"shape": list(target)}, opset)


@case("transpose")
def _(draw: Draw) -> Call:
    shape = draw(shapes())
    perm = draw(st.permutations(range(len(shape))))
    return Call("transpose", {"x": numbers(draw, shape, draw(FLOATS))}, {"perm": list(perm)})


@case("expand_dims")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    count = draw(st.integers(1, 2))
    axes = draw(st.permutations(range(len(shape) + count)))[:count]
    axes = [a - (len(shape) + count) if draw(st.booleans()) else a for a in axes]
    return Call("expand_dims", {"x": numbers(draw, shape)}, {"axes": axes})


@case("squeeze")
def _(draw: Draw) -> Call:
    shape = (2, 1, 3, 1)
    axes = draw(st.sampled_from([[1], [3], [1, 3], [-1], [-3, -1]]))
    return Call("squeeze", {"x": numbers(draw, shape)}, {"axes": axes})


@case("flatten2d")
def _(draw: Draw) -> Call:
    shape = draw(shapes(2, 4))
    axis = draw(st.integers(1, len(shape) - 1))
    return Call("flatten2d", {"x": numbers(draw, shape)}, {"axis": axis})


@case("shape")
def _(draw: Draw) -> Call:
    return Call("shape", {"x": numbers(draw, draw(shapes()))}, {})


@case("concat")
def _(draw: Draw) -> Call:
    shape, dtype = draw(shapes()), draw(FLOATS)
    axis = axis_of(draw, shape)
    values = []
    for _ in range(draw(st.integers(1, 3))):
        sizes = list(shape)
        sizes[axis] = draw(st.integers(1, 4))
        values.append(numbers(draw, tuple(sizes), dtype))
    return Call("concat", {"values": tuple(values)}, {"axis": axis})


@case("stack")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    values = tuple(numbers(draw, shape) for _ in range(draw(st.integers(1, 3))))
    return Call("stack", {"values": values}, {"axis": draw(st.integers(0, len(shape)))})


@case("split")
def _(draw: Draw) -> Call:
    shape = (2, 6, 4)
    if draw(st.booleans()):
        constants = {"split_sizes": [1, 2, 3], "axis": draw(st.sampled_from([1, -2]))}
    else:
        constants = {"num_splits": 2, "axis": axis_of(draw, shape)}
    return Call("split", {"x": numbers(draw, shape)}, constants)


@case("tile")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    reps = draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    return Call("tile", {"x": numbers(draw, shape, draw(FLOATS))}, {"reps": reps})


@case("reverse")
def _(draw: Draw) -> Call:
    shape = draw(shapes())
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(1, len(shape)))]
    return Call("reverse", {"x": numbers(draw, shape)}, {"axes": list(axes)})


def _slices(draw: Draw, shape: tuple[int, ...]) -> dict[str, list[int] | list[bool]]:
    """Return a slice that is not empty, with strides, masks and ends of both signs."""
    begin, end, stride, flags = [], [], [], ([], [], [])
    for size in shape:
        first = draw(st.integers(0, size - 1))
        last = draw(st.integers(first + 1, size))
        backwards = draw(st.booleans()) and first > 0
        step = draw(st.integers(1, 3))
        if backwards:  # from last - 1 down to first
            first, last, step = last - 1, first - 1, -step
        begin.append(first - size if draw(st.booleans()) else first)
        end.append(last - size if draw(st.booleans()) and 0 <= last < size else last)
        stride.append(step)
        for flag in flags:
            flag.append(draw(st.integers(0, 4)) == 0)
    masks = dict(zip(("begin_mask", "end_mask", "squeeze_mask"), flags, strict=True))
    return {"begin": begin, "end": end, "stride": stride, **masks}


@case("slice_by_index")
def _(draw: Draw) -> Call:
    shape = (*draw(shapes(1, 3)), 3)
    constants = _slices(draw, shape)
    constants["squeeze_mask"][-1] = False
    return Call("slice_by_index", {"x": numbers(draw, shape, draw(FLOATS))}, constants)


@case("slice_update")
def _(draw: Draw) -> Call:
    shape = (*draw(shapes(1, 3)), 3)
    constants = _slices(draw, shape)
    constants["squeeze_mask"] = [False] * len(shape)
    x = numbers(draw, shape)
    index = tuple(
        slice(None if bm else b, None if em else e, s)
        for b, e, s, bm, em in zip(
            *(constants[k] for k in ("begin", "end", "stride", "begin_mask", "end_mask")),
            strict=True,
        )
    )
    update = numbers(draw, x[index].shape)
    return Call("slice_update", {"x": x, "update": update}, constants)


@case("slice_by_size")
def _(draw: Draw) -> Call:
    shape = draw(shapes())
    begin = [draw(st.integers(0, size - 1)) for size in shape]
    size = [
        draw(st.sampled_from([-1, s - b])) if draw(st.booleans()) else 1
        for s, b in zip(shape, begin, strict=True)
    ]
    return Call("slice_by_size", {"x": numbers(draw, shape)}, {"begin": begin, "size": size})


@case("pad")
def _(draw: Draw) -> Call:
    shape = (2, 4, 5)
    count = draw(st.integers(1, 2))
    pads = draw(st.lists(st.integers(0, 3), min_size=2 * count, max_size=2 * count))
    mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
    constants = {"pad": pads, "mode": mode, "constant_val": np.float32(1.5)}
    return Call("pad", {"x": numbers(draw, shape)}, constants)


@case("fill")
def _(draw: Draw) -> Call:
    value = draw(st.sampled_from([np.float32(2.5), np.int32(3), np.float16(0.1)]))
    return Call("fill", {}, {"shape": list(draw(shapes())), "value": value})


@case("fill_like")
def _(draw: Draw) -> Call:
    return Call("fill_like", {"ref_tensor": numbers(draw, draw(shapes()))}, {"value": np.int32(7)})


@case("range_1d")
def _(draw: Draw) -> Call:
    start, count, step = (draw(st.integers(*r)) for r in ((-5, 5), (1, 9), (1, 3)))
    kind = draw(st.sampled_from([np.int32, np.float32]))
    numbers_ = {"start": kind(start), "end": kind(start + count * step), "step": kind(step)}
    return Call("range_1d", {}, numbers_)


@case("band_part")
def _(draw: Draw) -> Call:
    constants = {key: draw(st.integers(-1, 3)) for key in ("lower", "upper")}
    return Call("band_part", {"x": numbers(draw, draw(shapes(2, 4)))}, constants)


@case("gather")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    axis = axis_of(draw, shape)
    opset = draw(st.sampled_from(["iOS16", "iOS18"]))
    low = -shape[axis] if opset == "iOS16" else 0
    indices = numbers(draw, draw(shapes(1, 2)), "i4", low, shape[axis] - 1)
    x = numbers(draw, shape, draw(FLOATS))
    return Call("gather", {"x": x, "indices": indices}, {"axis": axis}, opset)


@case("gather_along_axis")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    axis = axis_of(draw, shape)
    sizes = list(shape)
    sizes[axis] = draw(st.integers(1, 4))
    indices = numbers(draw, tuple(sizes), "i4", 0, shape[axis] - 1)
    x = numbers(draw, shape)
    return Call("gather_along_axis", {"x": x, "indices": indices}, {"axis": axis})


@case("scatter_along_axis")
def _(draw: Draw) -> Call:
    data = numbers(draw, (4, 3), "f4", 1, 4)
    axis = draw(st.sampled_from([0, 1, -1]))
    rows = [
        draw(st.permutations(range(data.shape[axis])))[:2] for _ in range(data.shape[1 - axis % 2])
    ]
    indices = np.array(rows, "i4")
    indices = indices.T if axis == 0 else indices
    updates = numbers(draw, indices.shape, "f4", 1, 4)
    tensors = {"data": data, "indices": indices, "updates": updates}
    return Call("scatter_along_axis", tensors, {"axis": axis, "mode": "update"})


@case("non_zero")
def _(draw: Draw) -> Call:
    return Call("non_zero", {"x": numbers(draw, draw(shapes()), "i4", 0, 1)}, {})


@case("topk")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    axis = axis_of(draw, shape)
    k = draw(st.integers(1, shape[axis]))
    constants = {"k": k, "axis": axis, "ascending": draw(st.booleans())}
    return Call("topk", {"x": spread_values(draw, shape)}, constants)


@case("argsort")
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    constants = {"axis": axis_of(draw, shape), "ascending": draw(st.booleans())}
    return Call("argsort", {"x": spread_values(draw, shape)}, constants)


@case("quantize")
def _(draw: Draw) -> Call:
    # (input / scale) in fp32 on both sides, rounded half to even.
    x = numbers(draw, (3, 4), "f4", -30, 30)
    scale = numbers(draw, (3,), "f4", 0.1, 0.5)
    constants = {"scale": scale, "axis": 0, "output_dtype": "int8"}
    if draw(st.booleans()):
        constants["zero_point"] = numbers(draw, (3,), "i1", -5, 5)
    return Call("quantize", {"input": x}, constants)
