"""A cause is named when it explains the numbers, and only then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.fx import Graph, Node

from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.causes import Cause, Evidence, Observation, find_cause

_OURS, _ATEN = torch.ops.mobilepack, torch.ops.aten
TOKENS, SIZE = 24, 64


def _node(target: Callable[..., object], *arguments: object) -> Node:
    graph = Graph()
    made = [graph.placeholder(a) if isinstance(a, str) else a for a in arguments]
    node = graph.call_function(target, tuple(made))  # type: ignore[arg-type]
    node.meta["val"] = torch.empty(1, TOKENS, SIZE, device="meta")
    return node


def _evidence(
    node: Node, x: torch.Tensor, found: torch.Tensor, expected: torch.Tensor, **more: object
) -> Evidence:
    seen = Observation(0, 0, (x[None],), found[None], expected[None])
    return Evidence(node=node, observations=(seen,), constants={}, **more)  # type: ignore[arg-type]


def _random(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def _linear(change: Callable[[torch.Tensor], torch.Tensor], noise: float = 0.0) -> Cause | None:
    x, weight = _random(TOKENS, SIZE), _random(SIZE, SIZE, seed=1)
    expected = x @ weight.T
    found = x @ change(weight.clone()).T
    found += noise * _random(TOKENS, SIZE, seed=2)
    node = _node(_ATEN.linear.default, "x", "w")
    return find_cause(_evidence(node, x, found, expected, weight=weight, head_dim=16, group=32))


def _swap(weight: torch.Tensor) -> torch.Tensor:
    weight[:16], weight[32:48] = weight[32:48].clone(), weight[:16].clone()
    return weight


def _swap_columns(weight: torch.Tensor) -> torch.Tensor:
    return _swap(weight.T.contiguous()).T


def _one_group(weight: torch.Tensor) -> torch.Tensor:
    weight[7, 32:] *= 3
    return weight


def _one_row(weight: torch.Tensor) -> torch.Tensor:
    weight[7] *= 0.5
    return weight


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        (lambda w: w.T, "transposed-weight", ""),
        (_swap, "swapped-heads", "heads 0 and 2 of its results"),
        (_swap_columns, "swapped-heads", "heads 0 and 2 of its inputs"),
        (_one_group, "mis-scaled-group", "row 7, group 1 (columns 32 to 63) is 3 times"),
        (_one_row, "wrong-row-scale", "row 7 is 0.5 times"),
        (lambda w: 2 * w, "wrong-scale", "2 times"),
    ],
)
def test_faults_of_a_linear_map(
    change: Callable[[torch.Tensor], torch.Tensor], name: str, text: str
) -> None:
    cause = _linear(change)
    assert cause is not None
    assert cause.name == name
    assert text in cause.text
    assert cause.explained > 0.999


def test_a_little_noise_hides_no_cause_and_noise_alone_has_none() -> None:
    cause = _linear(_swap, noise=0.5)
    assert cause is not None
    assert cause.name == "swapped-heads"
    assert cause.explained < 0.999
    assert _linear(lambda w: w, noise=1.0) is None
    assert _linear(lambda w: w.flip(0)) is None  # a fault that nobody knows


@pytest.mark.parametrize(
    ("form", "name"),
    [("tanh", "its tanh form"), ("silu", "SiLU"), ("relu", "ReLU"), ("same", "nothing")],
)
def test_faults_of_an_activation(form: str, name: str) -> None:
    x = 2 * _random(TOKENS, SIZE)
    gelu = torch.nn.functional.gelu
    wrong = {
        "tanh": gelu(x, approximate="tanh"),
        "silu": torch.nn.functional.silu(x),
        "relu": torch.relu(x),
        "same": x,
    }
    cause = find_cause(_evidence(_node(_ATEN.gelu.default, "x"), x, wrong[form], gelu(x)))
    assert cause is not None
    assert cause.name == "wrong-activation"
    assert f"it computes {'GELU in ' if form == 'tanh' else ''}{name}" in cause.text
    assert "GELU in its erf form" in cause.text


def test_faults_of_a_norm() -> None:
    x, weight = _random(TOKENS, SIZE), 1 + 0.5 * _random(SIZE, seed=3)
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    node = _node(_OURS.rms_norm.default, "x", "w", 1e-5)
    seen = Observation(0, 0, (x[None],), plain[None], (plain * weight)[None])
    evidence = Evidence(node=node, observations=(seen,), constants={"norm.weight": weight})
    cause = find_cause(evidence)
    assert cause is not None
    assert cause.name == "missing-weight"


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("factor", "shift", "flip", "name"),
    [
        (0.25, 0, False, "wrong-rope-factor"),
        (1.0, 1, False, "shifted-positions"),
        (1.0, 0, True, "wrong-pairing"),
    ],
)
def test_faults_of_a_rotation(
    interleaved: bool, factor: float, shift: int, flip: bool, name: str
) -> None:
    half = 8
    angles = torch.arange(64)[:, None] * 10000.0 ** (-torch.arange(half) / half)
    tables = {"tables.cos_0": angles.cos(), "tables.sin_0": angles.sin()}
    x, position = _random(1, TOKENS, SIZE), torch.zeros(1, dtype=torch.long)

    def turned(by: torch.Tensor, pairs: bool) -> torch.Tensor:
        result: torch.Tensor = _OURS.rope(x, by.cos(), by.sin(), position, 4, pairs)
        return result

    expected = turned(angles, interleaved)
    moved = (angles * factor)[shift:]
    found = turned(moved, interleaved != flip)
    node = _node(_OURS.rope.default, "x", "cos", "sin", "position", 4, interleaved)
    seen = Observation(0, 0, (x,), found, expected)
    cause = find_cause(Evidence(node=node, observations=(seen,), constants=tables))
    assert cause is not None
    assert cause.name == name


def test_what_leaves_half_precision_is_said_first() -> None:
    x = _random(TOKENS, SIZE)
    expected = 1e6 * x
    found = expected.half().float()
    node = _node(_ATEN.linear.default, "x", "w")
    cause = find_cause(_evidence(node, x, found, expected, weight=1e6 * torch.eye(SIZE)))
    assert cause is not None
    assert cause.name == "fp16-saturation"
    assert "65504" in cause.text
