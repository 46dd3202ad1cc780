from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.gate import Gate, Rule
from mobilepack.errors import UsageError
from mobilepack.metrics.changes import Change, Fact, changes
from mobilepack.metrics.gating import judge

figures = st.floats(0, 1e12, allow_nan=False)


def samples(median: float, spread: float = 0.01, count: int = 40) -> tuple[float, ...]:
    return tuple(median * (1 + spread * np.random.default_rng(1).standard_normal(count)))


def one(before: Fact | None, after: Fact | None) -> Change:
    return changes([before] if before else [], [after] if after else [])[0]


def measured(value: float, **more: object) -> Fact:
    found = samples(value)
    return Fact("t", float(np.median(found)), "ms", "lower", found, **more)  # type: ignore[arg-type]


def test_an_exact_figure_has_an_exact_ratio() -> None:
    change = one(Fact("size", 100, "bytes", "lower"), Fact("size", 110, "bytes", "lower"))
    assert (change.ratio, change.low, change.high, change.status) == (1.1, 1.1, 1.1, "worse")
    assert one(Fact("size", 100), Fact("size", 110)).status == "differs"
    assert one(Fact("x", 2, better="higher"), Fact("x", 3, better="higher")).status == "better"
    assert one(Fact("x", 5), Fact("x", 5)).status == "same"


def test_a_measured_figure_has_an_interval_that_holds_the_truth() -> None:
    change = one(measured(10), measured(12))
    assert change.low is not None
    assert change.high is not None
    assert 1.19 < change.low < 1.2 < change.high < 1.21
    assert change.status == "worse"


def test_a_change_within_the_noise_is_unsure() -> None:
    noisy = samples(10, 0.3, 6)
    other = tuple(reversed([value * 1.02 for value in noisy]))
    a = Fact("t", float(np.median(noisy)), "ms", "lower", noisy)
    b = Fact("t", float(np.median(other)), "ms", "lower", other)
    assert one(a, b).status == "unsure"


def test_what_only_one_side_has() -> None:
    assert one(None, Fact("x", 1)).status == "added"
    assert one(Fact("x", 1), None).status == "removed"


@given(before=figures, after=figures)
def test_status_and_ratio_agree(before: float, after: float) -> None:
    change = one(Fact("x", before, better="lower"), Fact("x", after, better="lower"))
    if change.status == "better":
        assert after < before
    elif change.status == "worse":
        assert after > before


def gate(**rule: object) -> Gate:
    return Gate(rule=(Rule(metric="t", **rule),))  # type: ignore[arg-type]


def outcome(rules: Gate, change: Change) -> str:
    return judge(rules, [change])[0].outcome


def test_limits_of_change() -> None:
    rules = gate(max_increase="5%", max_decrease="5%")
    assert outcome(rules, one(measured(10), measured(10.2))) == "passed"
    assert outcome(rules, one(measured(10), measured(11))) == "failed"
    assert outcome(rules, one(measured(10), measured(9))) == "failed"


def test_an_interval_that_holds_the_limit_is_not_judged() -> None:
    found = judge(gate(max_increase="5%"), [one(measured(10), measured(10.51))])[0]
    assert found.outcome == "not judged"
    assert "too close to say" in found.why


def test_a_time_that_cannot_be_trusted_breaks_nothing() -> None:
    found = judge(gate(max=1.0), [one(measured(10), measured(30, distrust="NOISY: spread"))])[0]
    assert (found.outcome, found.why) == ("not judged", "NOISY: spread")


def test_absolute_limits() -> None:
    change = one(Fact("t", 1), Fact("t", 2))
    assert outcome(gate(max=1.9), change) == "failed"
    assert outcome(gate(min=2.1), change) == "failed"
    assert outcome(gate(min=2, max=2), change) == "passed"


def test_a_rule_that_names_nothing_fails_unless_told_otherwise() -> None:
    missing = Gate(rule=(Rule(metric="absent/*", max=1.0),))
    optional = Gate(rule=(Rule(metric="absent/*", max=1.0, required=False),))
    change = one(Fact("t", 1), Fact("t", 1))
    assert judge(missing, [change])[0].outcome == "failed"
    assert judge(optional, [change])[0].outcome == "not judged"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "rule"),
        ("[[rule]]\nmetric = 't'\n", "needs one of max"),
        ("[[rule]]\nmetric = 't'\nmax_increase = 5\n", "max_increase"),
        ("[[rule]]\nmetric = 't'\nmaximum = 5\n", "maximum"),
        ("[[rule\n", "cannot read"),
    ],
)
def test_a_broken_gate_file_is_one_error(tmp_path, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as failure:
        Gate.load(path)
    assert said in failure.value.what + failure.value.why
