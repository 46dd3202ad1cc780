"""Planning memory: tensors that live at the same time never share a byte."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobilepack.backends.xnnpack.memory import Lifetime, plan_memory

ALIGNMENT = 64


def rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@st.composite
def lifetimes(draw: st.DrawFn) -> list[Lifetime]:
    spans = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 5000))
    rows = draw(st.lists(spans, max_size=24))
    return [Lifetime(i, size, min(a, b), max(a, b)) for i, (a, b, size) in enumerate(rows)]


@settings(max_examples=300, deadline=None)
@given(items=lifetimes())
@example(items=[])
@example(items=[Lifetime(0, 64, 0, 3), Lifetime(1, 64, 3, 5)])
@example(items=[Lifetime(0, 64, 0, 3), Lifetime(1, 64, 4, 5)])
def test_plans_are_safe_aligned_and_no_larger_than_they_need_be(items: list[Lifetime]) -> None:
    offsets, total = plan_memory(items)
    assert set(offsets) == {item.index for item in items}
    assert all(offset % ALIGNMENT == 0 for offset in offsets.values())
    for a in items:
        assert offsets[a.index] + a.size <= total
        for b in items:
            apart_in_time = a.last < b.first or b.last < a.first
            start, end = offsets[a.index], offsets[a.index] + a.size
            apart_in_space = end <= offsets[b.index] or offsets[b.index] + b.size <= start
            assert a is b or apart_in_time or apart_in_space
    assert total <= sum(rounded(item.size) for item in items)
    busiest = max(
        (sum(rounded(i.size) for i in items if i.first <= t <= i.last) for t in range(13)),
        default=0,
    )
    assert total >= busiest


@settings(max_examples=50, deadline=None)
@given(items=lifetimes(), data=st.data())
def test_the_order_of_the_items_does_not_matter(items: list[Lifetime], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(items))
    assert plan_memory(shuffled) == plan_memory(items)


@settings(max_examples=100, deadline=None)
@given(items=lifetimes(), data=st.data())
def test_only_tensors_that_meet_are_kept_apart(items: list[Lifetime], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(items), max_size=len(items)))

    def meet(a: Lifetime, b: Lifetime) -> bool:
        return groups[a.index] == groups[b.index]

    offsets, total = plan_memory(items, meet)
    for a in items:
        for b in items:
            if a is not b and meet(a, b):
                end = offsets[a.index] + a.size
                assert end <= offsets[b.index] or offsets[b.index] + b.size <= offsets[a.index]
    largest = [sum(rounded(i.size) for i in items if groups[i.index] == g) for g in range(3)]
    assert total == max(largest)


def test_a_chain_of_equal_tensors_needs_two_of_them() -> None:
    items = [Lifetime(i, 1000, i, i + 1) for i in range(10)]
    assert plan_memory(items)[1] == 2 * rounded(1000)
