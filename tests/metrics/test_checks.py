"""What is run covers one token, odd and whole chunks, the last position, a second prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.reference import ReferenceIndex, ReferenceSequence
from mobilepack.contract.run_plan import RunPlan
from mobilepack.metrics.checks import Checks, plan_checks
from tests.packages import toy_reference


def _index(*lengths: int) -> ReferenceIndex:
    sequences = tuple(
        ReferenceSequence(name=f"s{i}", token_ids=tuple(range(n))) for i, n in enumerate(lengths)
    )
    return ReferenceIndex(
        vocab_size=1000, sample_ids=(0,), top_k=1, variants=("fp32",), sequences=sequences
    )


def _plan(index: ReferenceIndex, chunk: int, room: int, steps: int = 64) -> Checks:
    return plan_checks(index, prefill_chunk=chunk, max_seq_len=room, decode_steps=steps)


def test_roles_of_a_usual_reference() -> None:
    checks = _plan(_index(24, 33, 100), chunk=40, room=100)
    one, odd, full, again, end = (check.item.calls for check in checks.teachers)
    assert one == (1,) * 24
    assert odd[0] == 15
    assert odd[1:] == (1,) * 18
    assert full == (40, 40, 20)
    assert again[0] == 12
    assert sum(end) == 100
    assert end[-1] == 1
    assert checks.teachers[3].sequence == checks.teachers[0].sequence
    assert [c.item.calls for c in checks.prefills] == [(16,), (24,), (33,)]
    assert checks.whole == ()


def test_one_check_decodes_32_steps_in_a_row_even_of_a_short_reference() -> None:
    assert _plan(_index(24, 33), chunk=40, room=100).teachers[-1].item.calls == (1,) * 33
    assert _plan(_index(24, 49), chunk=40, room=100).teachers[-1].item.calls == (17, *(1,) * 32)
    assert _plan(_index(24, 33), chunk=40, room=100, steps=8).teachers[-1].item.calls[0] == 25
    assert _plan(_index(1), chunk=40, room=100).teachers[-1].item.calls == (1,)


def test_a_cache_longer_than_the_reference_is_filled_in_two_ways() -> None:
    checks = _plan(_index(24, 33), chunk=40, room=100)
    first, second = (check.item for check in checks.whole)
    assert first.positions == second.positions == 100
    assert first.token_ids == second.token_ids
    assert first.calls[0] == 40
    assert second.calls[0] == 21
    assert first.calls[-8:] == second.calls[-8:] == (1,) * 8


@given(
    st.lists(st.integers(1, 80), min_size=1, max_size=4),
    st.integers(1, 90),
    st.integers(2, 90),
    st.integers(1, 70),
)
def test_whatever_the_reference_holds_the_plan_can_be_carried_out(
    lengths: list[int], chunk: int, room: int, steps: int
) -> None:
    checks = _plan(_index(*lengths), chunk, room, steps)
    plan = RunPlan(max_seq_len=room, prefill_chunk=chunk, items=checks.items)
    assert max(item.positions for item in plan.items) <= room
    assert any(item.positions == min(room, max(lengths)) for item in plan.items)


def test_greedy_text_is_asked_for_as_long_as_the_cache_allows() -> None:
    checks = _plan(toy_reference().index, chunk=16, room=16)
    item, _ = checks.greedy[0]
    assert item.positions == 16
    assert not _plan(toy_reference().index, chunk=16, room=13).greedy
