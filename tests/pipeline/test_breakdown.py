"""Operators' times go to the operator and to the part of the model that they lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.commands.build import BuildOptions, build
from mobilepack.harness.profile import profile_package
from mobilepack.models.zoo.random_checkpoint import write_random_checkpoint
from mobilepack.pipeline.breakdown import Event, part_of, phase_of
from mobilepack.pipeline.plan import Choices
from tests.matrix.cases import CASES

LINEAR = "Fully Connected (NC, QD8, F32, QB4W) GEMM"
ORDER = (
    "ones",
    "layers.0.q.weight[0:4/8]",
    "layers.0.o.weight",
    "layers.0.up.weight",
    "head.weight",
)


def events() -> list[Event]:
    timed = [
        ("Method::execute", 100.0), ("native_call_embedding_4bit.out #1", 3.0),
        ("OPERATOR_CALL", 3.0), ("Square (NC) #1", 1.0), (f"{LINEAR} #1", 2.0),
        (f"{LINEAR} #2", 4.0), ("Softmax (NC, F32) #1", 5.0), (f"{LINEAR} #3", 6.0),
        ("Add (ND) #1", 7.0), (f"{LINEAR} #4", 8.0), (f"{LINEAR} #5", 9.0), ("Clamp (NC) #1", 10.0),
    ]  # fmt: skip
    # one call was interrupted; its times do not count
    return [Event(name, (ms, ms * 50, ms)) for name, ms in timed]


def test_an_operator_belongs_to_the_linear_map_that_comes_next() -> None:
    phase = phase_of("decode", 1, events(), ORDER)
    parts = {part.part: part.milliseconds for part in phase.parts}
    # the norm (1 + 2) leads to the queries; the softmax to the output projection
    assert parts == {
        "embedding": 3.0, "attention": 1 + 2 + 4 + 5 + 6.0, "feed-forward": 7 + 8.0,
        "output head": 9 + 10.0,
    }  # fmt: skip
    assert phase.call_ms == 100.0
    assert phase.unattributed_ms == 100.0 - 55.0
    assert phase.runs == 3


def test_operators_are_counted_and_sorted_by_time() -> None:
    phase = phase_of("prefill", 8, events(), ORDER)
    assert (phase.operators[0].operator, phase.operators[0].calls) == (LINEAR, 5)
    assert phase.operators[0].milliseconds == 29.0
    times = [one.milliseconds for one in phase.operators]
    assert times == sorted(times, reverse=True)


def test_a_graph_that_does_not_fit_has_no_parts_and_says_so() -> None:
    phase = phase_of("decode", 1, events(), ORDER[:3])
    assert phase.parts == ()
    assert phase.why_no_parts == "the call ran 5 linear maps, the graph has 3"
    assert phase_of("decode", 1, events(), None).why_no_parts


@pytest.mark.parametrize(
    ("weight", "part"),
    [
        ("layers.11.v.weight", "attention"), ("layers.0.down.weight", "feed-forward"),
        ("layers.0.router.weight", "other"), ("embed.weight", "output head"), ("fill:1", None),
    ],
)  # fmt: skip
def test_weights_name_their_part(weight: str, part: str | None) -> None:
    assert part_of(weight) == part


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recipe"), [("llama", "8da4w"), ("phi", "fp32"), ("gemma2", "8da4w")]
)
def test_a_real_program_is_profiled_to_its_parts(name: str, recipe: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    write_random_checkpoint({"model_type": case.model_type, **case.keys}, tmp_path / "m")
    choices = Choices(linear=recipe, max_seq_len=40, prefill_chunk=24)
    (built,) = build(BuildOptions(model=str(tmp_path / "m"), out=tmp_path, choices=choices))
    profile = profile_package(built.folder, 16, 1)
    assert [(p.phase, p.tokens) for p in profile.phases] == [("prefill", 16), ("decode", 1)]
    for phase in profile.phases:
        assert phase.why_no_parts == ""
        assert phase.runs >= 2
        assert any(one.operator.startswith("Fully Connected") for one in phase.operators)
        assert phase.call_ms > 0
