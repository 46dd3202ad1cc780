"""The pictures of the page: where bars start, what a strip shows, which conditions changed."""

from __future__ import annotations

import math

import pytest

from mobilepack.contract.parity import Measured, Parity, ParityRow, Rung
from mobilepack.report.charts import DOTS, conditions, split, strips, waterfall
from mobilepack.report.chosen import SHOWN, chosen
from tests.report.records import a_bench, a_parity, a_test


def _row(rung: Rung, against: Rung, value: float, limit: float | None = None) -> ParityRow:
    metric = Measured(name="rms_over_std", value=value, better="lower", limit=limit)
    status = "passed" if limit is not None else "reported"
    return ParityRow(
        rung=rung, against=against, check="", compared=1, metrics=(metric,), status=status
    )


def _ladder(*rows: ParityRow) -> Parity:
    return a_parity("id").model_copy(update={"rows": rows})


def test_a_step_starts_where_the_rung_above_it_ended() -> None:
    steps = waterfall(a_parity("id"))
    # The whole is the limit of the program: 0.10 of quantisation and 0.03 of tolerance.
    quantised, program, device = steps
    assert (quantised.start, quantised.width, quantised.limit) == (0.0, 76.92, None)
    assert (program.start, program.width, program.limit) == (76.92, 15.38, 100.0)
    assert (program.status, program.kl_max, program.value) == ("failed", 0.5, 0.02)
    assert (device.rung, device.status, device.value) == ("program on device", "not run", None)


def test_the_nearest_rung_above_carries_on_and_the_whole_starts_at_zero() -> None:
    steps = waterfall(
        _ladder(
            _row("program on device", "program on host", 0.25),
            _row("program on host", "eager fp32", 0.6),
            _row("program on host", "eager quantised", 0.25),
            _row("program on host", "program on host", 9.0),
            _row("eager quantised", "eager fp32", 0.5),
        )
    )
    assert [(one.rung, one.against, one.start, one.width) for one in steps] == [
        ("eager quantised", "eager fp32", 0.0, 50.0),
        ("program on host", "eager quantised", 50.0, 25.0),
        ("program on host", "eager fp32", 0.0, 60.0),
        ("program on device", "program on host", 75.0, 25.0),
    ]


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_no_value_breaks_the_picture(value: float) -> None:
    rows = (
        _row("eager quantised", "eager fp32", value, limit=value),
        _row("program on host", "eager quantised", 0.5),
    )
    for step in waterfall(_ladder(*rows)):
        assert 0 <= step.start <= step.start + step.width <= 100


def test_a_strip_has_its_quartiles_and_at_most_so_many_dots() -> None:
    (per_token,) = strips(a_test(0, 4, "VALID"))
    assert (per_token.least, per_token.median, per_token.most) == (1.0, 3.0, 5.0)
    assert per_token.box == (52.0, 100.0, 148.0)  # 2, 3 and 4 of 1 to 5 between 4 and 196
    assert per_token.samples == len(per_token.dots) == 20
    assert per_token.dots[0] == (4.0, 3.0)
    assert per_token.dots[-1] == (196.0, 21.0)
    many = a_test(0, 4, "VALID").model_copy(update={"decode_ns": (tuple(range(10_001)),)})
    (strip,) = strips(many)
    assert strip.samples == 10_001
    assert DOTS / 2 < len(strip.dots) <= DOTS


def test_samples_that_are_all_the_same_stand_in_the_middle() -> None:
    (ttft,) = strips(a_test(8, 0, "VALID"))
    assert ttft.box == (100.0, 100.0, 100.0)
    one = a_test(8, 0, "VALID").model_copy(update={"prefill_ns": (5_000_000,)})
    assert strips(one)[0].median == 5.0
    assert strips(one.model_copy(update={"prefill_ns": ()})) == ()


def test_parts_have_their_percent() -> None:
    assert [part.width for part in split((("a", 1), ("b", 3)))] == [25.0, 75.0]
    assert [part.width for part in split((("a", 0), ("b", 0)))] == [0.0, 0.0]


def test_before_and_after_share_a_row() -> None:
    found = {one.name: (one.before, one.after) for one in conditions(a_bench("id"))}
    assert found == {
        "thermal status": ("none", "light"),
        "memory bytes": ("8000000000", None),
        "governor": ("schedutil", None),
    }


def test_what_failed_is_shown_before_the_rest_and_in_its_place() -> None:
    passed = _row("program on host", "eager quantised", 0.1, limit=1.0)
    failed = passed.model_copy(update={"status": "failed"})
    rows = (*(passed,) * 5000, failed, *(passed,) * 5000)
    kept = chosen(rows)
    assert len(kept) == SHOWN
    assert kept[-1] is failed
    assert chosen(rows[:3]) == rows[:3]
