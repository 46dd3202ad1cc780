"""Random calls of reductions, products and norms: as close as any two orders of summation."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.mil.cases import U32, Bound, Draw, axis_of, broadcasting, case, numbers, shapes, ulps
from tests.mil.single import Call


def gamma(count: int) -> float:
    """Return γ_n of fp32."""
    return count * U32 / (1 - count * U32)


def _axes(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(1, len(shape)))]
    signed = [a - len(shape) if draw(st.booleans()) else a for a in axes]
    return {"axes": signed, "keep_dims": draw(st.booleans())}


def _reduced(function: Any) -> Bound:
    """Return 2 γ_n Σ|f(x)| over the reduced axes."""

    def bound(call: Call, result: np.ndarray) -> Any:
        x, axes = call.tensors["x"].astype("f8"), tuple(call.constants["axes"])
        count = int(np.prod([x.shape[axis] for axis in axes]))
        keep = bool(call.constants["keep_dims"])
        return 2 * gamma(count + 1) * np.sum(function(np.abs(x)), axis=axes, keepdims=keep)

    return bound


_TERMS: dict[str, Any] = {
    "reduce_sum": np.abs,
    "reduce_mean": np.abs,
    "reduce_l1_norm": np.abs,
    "reduce_sum_square": np.square,
    "reduce_max": np.zeros_like,
    "reduce_min": np.zeros_like,
}
for _name, _terms in _TERMS.items():

    @case(_name, _reduced(_terms))
    def _(draw: Draw, name: str = _name) -> Call:
        shape = draw(shapes())
        return Call(name, {"x": numbers(draw, shape)}, _axes(draw, shape))


# Root, logarithm and product: relative errors of the sums (all terms positive), n ≤ 625, plus the
# function's own ulps.
for _name in ("reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_prod"):

    @case(_name, lambda call, result: 2 * gamma(640) * np.maximum(np.abs(result), 1))
    def _(draw: Draw, name: str = _name) -> Call:
        shape = draw(shapes())
        return Call(name, {"x": numbers(draw, shape, "f4", 0.9, 1.1)}, _axes(draw, shape))


for _name in ("reduce_argmax", "reduce_argmin"):

    @case(_name)
    def _(draw: Draw, name: str = _name) -> Call:
        shape = draw(shapes())
        constants = {"axis": axis_of(draw, shape), "keep_dims": draw(st.booleans())}
        return Call(name, {"x": numbers(draw, shape, "f4", -2, 2).round()}, constants)


@case("cumsum", lambda call, result: 2 * gamma(5) * 20)
def _(draw: Draw) -> Call:
    shape = draw(shapes())
    axis = axis_of(draw, shape, negative=False)
    return Call(
        "cumsum", {"x": numbers(draw, shape)}, {"axis": axis, "reverse": draw(st.booleans())}
    )


def _product(call: Call, result: np.ndarray) -> Any:
    x, y = (np.abs(call.tensors[k].astype("f8")) for k in ("x", "y"))
    x = x.swapaxes(-1, -2) if call.constants["transpose_x"] else x
    y = y.swapaxes(-1, -2) if call.constants["transpose_y"] else y
    return 2 * gamma(x.shape[-1]) * (x @ y)


@case("matmul", _product)
def _(draw: Draw) -> Call:
    m, k, n = (draw(st.integers(1, 9)) for _ in range(3))
    batch = draw(shapes(1, 2, 3))
    turn_x, turn_y = draw(st.booleans()), draw(st.booleans())
    x = numbers(draw, (*batch, *((k, m) if turn_x else (m, k))))
    y = numbers(draw, (*broadcasting(draw, batch), *((n, k) if turn_y else (k, n))))
    return Call("matmul", {"x": x, "y": y}, {"transpose_x": turn_x, "transpose_y": turn_y})


@case(
    "linear",
    lambda call, result: (
        2 * gamma(18) * (np.abs(call.tensors["x"]) @ np.abs(call.constants["weight"]).T + 4)
    ),
)
def _(draw: Draw) -> Call:
    k, n = draw(st.integers(1, 17)), draw(st.integers(1, 9))
    constants = {"weight": numbers(draw, (n, k)), "bias": numbers(draw, (n,))}
    return Call("linear", {"x": numbers(draw, (*draw(shapes(1, 2)), k))}, constants)


@case("einsum", lambda call, result: 2 * gamma(5) * 5 * 16)
def _(draw: Draw) -> Call:
    b, c, h, w1, w2 = (draw(st.integers(1, 5)) for _ in range(5))
    x, y = numbers(draw, (b, c, h, w1)), numbers(draw, (1 if draw(st.booleans()) else b, w1, h, w2))
    return Call("einsum", {"values": (x, y)}, {"equation": "bchw,bwhu->bchu"})


@case("scaled_dot_product_attention", lambda call, result: 512 * U32 * 4)
def _(draw: Draw) -> Call:
    # Scores of up to 16 * sqrt(8) in size: their rounding (2 γ_9) multiplies exp by as much.
    lead, rows, keys, width = (draw(st.integers(1, 4)) for _ in range(4))
    shape = (lead, 2)
    tensors = {
        "query": numbers(draw, (*shape, rows, width), "f4", -2, 2),
        "key": numbers(draw, (*shape, keys, width), "f4", -2, 2),
        "value": numbers(draw, (*shape, keys, 3)),
    }
    kind = draw(st.sampled_from(["none", "added", "boolean"]))
    if kind == "added":
        tensors["attn_mask"] = numbers(draw, (rows, keys), "f4", -2, 0)
    if kind == "boolean":
        mask = numbers(draw, (rows, keys), "?")
        mask[:, 0] = True  # a row without any key has no softmax
        tensors["attn_mask"] = mask
    return Call("scaled_dot_product_attention", tensors, {})


# The centred values lose γ_n max|x| by cancellation; the deviation is kept above 0.1 by epsilon.
@case("layer_norm", lambda call, result: 2 * gamma(130) * 4 * 10)
def _(draw: Draw) -> Call:
    shape = draw(shapes(1, 3))
    axes = list(range(draw(st.integers(0, len(shape) - 1)), len(shape)))
    inner = tuple(shape[axis] for axis in axes)
    constants = {
        "axes": axes,
        "gamma": numbers(draw, inner, "f4", 0.5, 1),
        "beta": numbers(draw, inner, "f4", 0.5, 1),
        "epsilon": np.float32(0.01),
    }
    return Call("layer_norm", {"x": numbers(draw, shape)}, constants)


@case("l2_norm", ulps(2 * 130))
def _(draw: Draw) -> Call:
    x = numbers(draw, draw(shapes(3, 4)), "f4", 0.5, 1)
    return Call("l2_norm", {"x": x}, {"epsilon": np.float32(1e-6)})
