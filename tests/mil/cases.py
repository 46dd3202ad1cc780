"""Random calls of operators whose value coremltools can compute, and how close results must be.

A tolerance is one of:
- EXACT: every bit. Operators that move elements, compare, count, or round once.
- `ulps(n)`: n units in the last place of the result, for functions that two libraries approximate.
- `sums(n)`: 2 γ_n Σ|terms| with γ_n = n u / (1 - n u), u = 2^-24: the bound of any two orders of
  summation of n terms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.mil.single import Call

U32 = 2.0**-24
Draw = Callable[..., Any]
Bound = Callable[[Call, np.ndarray], Any]  # absolute error allowed, given the call and the result


@dataclass(frozen=True)
class Case:
    """How to make a call of an operator, and how close the results must be."""

    name: str
    make: Draw
    bound: Bound


CASES: list[Case] = []


def exact(call: Call, result: np.ndarray) -> Any:
    """Allow nothing."""
    return 0.0


def ulps(count: float) -> Bound:
    """Allow some units in the last place of the result's type."""

    def bound(call: Call, result: np.ndarray) -> Any:
        kind = result.dtype if result.dtype.kind == "f" else np.dtype("f4")
        spacing = np.spacing(np.abs(np.nan_to_num(result, posinf=0, neginf=0)).astype(kind))
        return count * spacing.astype("f8")

    return bound


def case(name: str, bound: Bound = exact) -> Callable[[Draw], Draw]:
    """Enter a maker of calls."""

    def enter(make: Draw) -> Draw:
        CASES.append(Case(name, make, bound))
        return make

    return enter


def shapes(least: int = 1, most: int = 4, largest: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    """Return shapes of `least` to `most` axes."""
    return st.lists(st.integers(1, largest), min_size=least, max_size=most).map(tuple)


def numbers(
    draw: Draw, shape: tuple[int, ...], dtype: str = "f4", low: float = -4, high: float = 4
) -> np.ndarray:
    """Return random elements of a shape."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if np.dtype(dtype).kind in "iu":
        return random.integers(int(low), int(high) + 1, shape).astype(dtype)
    if dtype == "?":
        return random.integers(0, 2, shape).astype("?")
    return random.uniform(low, high, shape).astype(dtype)


def spread_values(draw: Draw, shape: tuple[int, ...], dtype: str = "f4") -> np.ndarray:
    """Return elements that all differ, so that no order among equals matters."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.permutation(int(np.prod(shape))).reshape(shape).astype(dtype)


def broadcasting(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts to another."""
    keep = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    reduced = tuple(size if k else 1 for size, k in zip(shape, keep, strict=True))
    return reduced[draw(st.integers(0, len(shape) - 1)) :]


def axis_of(draw: Draw, shape: tuple[int, ...], *, negative: bool = True) -> int:
    """Return an axis, counted from either end."""
    return draw(st.integers(-len(shape) if negative else 0, len(shape) - 1))


FLOATS = st.sampled_from(["f4", "f2"])


def _unary(name: str, low: float, high: float, bound: Bound) -> None:
    def make(draw: Draw) -> Call:
        return Call(name, {"x": numbers(draw, draw(shapes()), draw(FLOATS), low, high)}, {})

    CASES.append(Case(name, make, bound))


# Functions that every IEEE library rounds correctly, and those that it approximates (SLEEF in torch
# and numpy's SIMD loops state at most 4 ulps each, so two of them differ by 8; tan, cosh and sinh
# come from the C library in one and not in the other).
for _name in ("abs", "ceil", "floor", "round", "sign", "square", "relu", "relu6"):
    _unary(_name, -300, 300, exact)
_unary("sqrt", 0, 300, ulps(1))
for _name, _low, _high in (
    ("exp", -8, 8),
    ("exp2", -8, 8),
    ("sin", -6, 6),
    ("cos", -6, 6),
    ("tan", -1.4, 1.4),
    ("tanh", -4, 4),
    ("sinh", -4, 4),
    ("cosh", -4, 4),
    ("asin", -0.9, 0.9),
    ("acos", -0.9, 0.9),
    ("atan", -9, 9),
    ("atanh", -0.9, 0.9),
):
    _unary(_name, _low, _high, ulps(8))
for _name in ("erf", "softsign"):
    _unary(_name, -4, 4, ulps(8))
# 1 / (1 + exp(-x)): one approximation and two roundings on each side; in fp16 numpy rounds each of
# the three steps to fp16.
_unary("sigmoid", -4, 4, ulps(12))
# log(1 + exp(x)) rounds at 1, whatever is left by the logarithm.
_unary("softplus", -4, 4, lambda call, result: ulps(12)(call, np.maximum(result, 1)))


def _binary(name: str, dtypes: list[str], low: float, high: float, bound: Bound) -> None:
    def make(draw: Draw) -> Call:
        shape, dtype = draw(shapes()), draw(st.sampled_from(dtypes))
        x = numbers(draw, shape, dtype, low, high)
        y = numbers(draw, broadcasting(draw, shape), dtype, low, high)
        return Call(name, {"x": x, "y": y}, {})

    CASES.append(Case(name, make, bound))


for _name in ("add", "sub", "mul", "maximum", "minimum"):
    _binary(_name, ["f4", "f2", "i4"], -100, 100, exact)
for _name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
    _binary(_name, ["f4", "f2", "i4"], -3, 3, exact)
for _name in ("floor_div", "mod"):
    _binary(_name, ["i4"], 1, 100, exact)
_binary("real_div", ["f4", "f2"], 1, 100, exact)
_binary("pow", ["f4"], 0.1, 4, ulps(8))
for _name in ("logical_and", "logical_or", "logical_xor"):
    _binary(_name, ["?"], 0, 1, exact)


@case("floor_div")
def _(draw: Draw) -> Call:
    shape = draw(shapes())
    signs = numbers(draw, shape, "i4", 0, 1) * 2 - 1
    x = numbers(draw, shape, "i4", -100, 100)
    return Call("floor_div", {"x": x, "y": signs * numbers(draw, shape, "i4", 1, 9)}, {})


@case("mod")
def _(draw: Draw) -> Call:
    shape = draw(shapes())
    signs = numbers(draw, shape, "i4", 0, 1) * 2 - 1
    x = numbers(draw, shape, "i4", -100, 100)
    return Call("mod", {"x": x, "y": signs * numbers(draw, shape, "i4", 1, 9)}, {})


@case("logical_not")
def _(draw: Draw) -> Call:
    return Call("logical_not", {"x": numbers(draw, draw(shapes()), "?")}, {})


@case("identity")
def _(draw: Draw) -> Call:
    return Call("identity", {"x": numbers(draw, draw(shapes()), draw(FLOATS))}, {})


@case("clip")
def _(draw: Draw) -> Call:
    dtype = draw(FLOATS)
    limits = {"alpha": np.dtype(dtype).type(-1.5), "beta": np.dtype(dtype).type(2.25)}
    return Call("clip", {"x": numbers(draw, draw(shapes()), dtype)}, limits)


@case("threshold")
def _(draw: Draw) -> Call:
    x = numbers(draw, draw(shapes()))
    return Call("threshold", {"x": x}, {"alpha": np.float32(0.75)})


for _name in ("log", "rsqrt", "inverse"):

    @case(_name, ulps(8))
    def _(draw: Draw, name: str = _name) -> Call:
        x = numbers(draw, draw(shapes()), "f4", 0.1, 90)
        return Call(name, {"x": x}, {"epsilon": np.float32(draw(st.sampled_from([1e-5, 0.5])))})


# Both sides round each step to fp32 in the same order; the exponential ones differ by its 8 ulps.
@case("leaky_relu")
def _(draw: Draw) -> Call:
    return Call("leaky_relu", {"x": numbers(draw, draw(shapes()))}, {"alpha": np.float32(0.3)})


@case("elu", ulps(16))
def _(draw: Draw) -> Call:
    return Call("elu", {"x": numbers(draw, draw(shapes()), "f4", 0.5, 4)}, {"alpha": np.float32(1)})


@case("elu", lambda call, result: 8 * U32)
def _(draw: Draw) -> Call:
    # exp(x) - 1 loses bits near 0: an absolute error of exp's ulps at 1.
    return Call("elu", {"x": numbers(draw, draw(shapes()))}, {"alpha": np.float32(1)})


for _name, _second in (("clamped_relu", 2.0), ("linear_activation", 0.5), ("sigmoid_hard", 0.5)):

    @case(_name, ulps(2))
    def _(draw: Draw, name: str = _name, beta: float = _second) -> Call:
        constants = {"alpha": np.float32(0.25), "beta": np.float32(beta)}
        return Call(name, {"x": numbers(draw, draw(shapes()))}, constants)


@case("scaled_tanh", ulps(10))
def _(draw: Draw) -> Call:
    constants = {"alpha": np.float32(1.5), "beta": np.float32(0.7)}
    return Call("scaled_tanh", {"x": numbers(draw, draw(shapes()))}, constants)


@case("thresholded_relu")
def _(draw: Draw) -> Call:
    return Call("thresholded_relu", {"x": numbers(draw, draw(shapes()))}, {"alpha": np.float32(1)})


@case("prelu")
def _(draw: Draw) -> Call:
    shape = draw(shapes(4, 4))
    alpha = numbers(draw, (shape[1],), "f4", 0.1, 1)
    return Call("prelu", {"x": numbers(draw, shape)}, {"alpha": alpha})


@case("softplus_parametric", lambda call, result: ulps(16)(call, np.maximum(result, 1)))
def _(draw: Draw) -> Call:
    shape = draw(shapes(3, 4))
    constants = {key: numbers(draw, (shape[1],), "f4", 0.5, 1) for key in ("alpha", "beta")}
    return Call("softplus_parametric", {"x": numbers(draw, shape)}, constants)


@case("gelu", lambda call, result: 16 * U32 * np.abs(call.tensors["x"]))
def _(draw: Draw) -> Call:
    # x/2 (1 + erf(...)): the sum of nearly opposite terms leaves an error relative to x.
    modes = st.sampled_from(["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
    return Call("gelu", {"x": numbers(draw, draw(shapes()))}, {"mode": draw(modes)})


@case("softmax", lambda call, result: 64 * U32 * np.abs(result))
def _(draw: Draw) -> Call:
    # exp: 8 ulps above and below the line, the sum of at most 5 terms: 5 more on each side.
    shape = draw(shapes())
    return Call("softmax", {"x": numbers(draw, shape)}, {"axis": axis_of(draw, shape)})
