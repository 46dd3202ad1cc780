"""Summaries of values, and the first value in which two runs differ."""

from __future__ import annotations

import math

import torch

from mobilepack.mil.program import NamedType, Operation
from mobilepack.mil.trace import Runner, compare_runs, difference, traced
from mobilepack.mil.types import DType, TensorType


def _runner(*values: tuple[str, float]) -> Runner:
    def run(observe) -> None:  # type: ignore[no-untyped-def]
        for name, value in values:
            kind = TensorType(DType.FLOAT16, (2,))
            operation = Operation(f"op_{name}", {}, (NamedType(name, kind),))
            observe(operation, name, torch.tensor([1.0, value]))

    return run


def test_a_summary_counts_what_fp16_cannot_hold() -> None:
    row = traced(0, "mul", "y", torch.tensor([1.0, -7e4, math.inf, math.nan]))
    assert (row.least, row.largest, row.beyond_fp16) == (-7e4, 1.0, 3)


def test_a_value_does_not_differ_from_itself_even_where_it_is_not_finite() -> None:
    value = torch.tensor([math.inf, math.nan, 1.0])
    assert difference(0, "op", "y", value, value.clone()).relative == 0


def test_infinities_shapes_and_zeros_differ_infinitely() -> None:
    one = torch.ones(2)
    for other in (torch.tensor([1.0, math.inf]), torch.ones(3)):
        assert difference(0, "op", "y", one, other).relative == math.inf
    assert difference(0, "op", "y", one, torch.zeros(2)).relative == math.inf


def test_the_first_difference_is_found_in_the_order_of_the_second_run() -> None:
    ours = _runner(("a", 2.0), ("b", 3.0), ("c", 9.0), ("only", 1.0), ("a", 2.5))
    theirs = _runner(("a", 2.0), ("c", 4.0), ("b", 3.5), ("a", 2.0), ("new", 0.0))
    found = compare_runs(ours, theirs, 0.01)
    assert found.first is not None
    assert found.worst is not None
    assert (found.first.name, found.first.operator, found.first.call) == ("c", "op_c", 0)
    assert found.worst.name == "c"
    assert (found.compared, found.unmatched) == (4, 2)


def test_runs_within_the_tolerance_have_no_first_difference() -> None:
    found = compare_runs(_runner(("a", 1.0)), _runner(("a", 1.001)), 0.01)
    assert found.first is None
    assert found.worst is not None
    assert 0 < found.worst.relative < 0.01
