"""Building a method: what two ways through it may share, and what a constant method answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.backends.executorch import constant_method
from mobilepack.backends.xnnpack.layout import Layout
from mobilepack.backends.xnnpack.program import ProgramBuilder


@dataclass
class Model:
    """A method with its instructions by hand: which tensors each uses, on which way."""

    program: ProgramBuilder = field(default_factory=lambda: ProgramBuilder(Layout()))
    tensors: list[int] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    ways: dict[str, list[tuple[int, ...]]] = field(default_factory=lambda: {"then": [], "else": []})

    def use(self, used: tuple[int, ...], *names: str) -> None:
        self.program.kernel("aten::add", "out", *used)
        for name in names:
            self.ways[name].append(used)


Uses = list[tuple[int, ...]]


def build(counts: list[int], before: Uses, then: Uses, otherwise: Uses, after: Uses) -> Model:
    """Build `before; if x: then else: otherwise; after` over tensors of the given sizes."""
    model = Model()
    program = model.program
    for index, count in enumerate(counts):
        made = program.state([count]) if index == 0 else program.tensor([count])
        model.tensors.append(made)
        model.sizes[made] = 4 * count
    for used in before:
        model.use(tuple(model.tensors[i] for i in used), "then", "else")
    jump = program.jump_if_false(program.scalar_output(bool))
    for used in then:
        model.use(tuple(model.tensors[i] for i in used), "then")
    end = program.jump()
    program.land(jump)
    for used in otherwise:
        model.use(tuple(model.tensors[i] for i in used), "else")
    program.land(end)
    for used in after:
        model.use(tuple(model.tensors[i] for i in used), "then", "else")
    program.output(model.tensors[-1])
    return model


def lives(way: Uses, last: int, state: int) -> Iterator[tuple[int, int, int]]:
    """Yield (tensor, first, last use) along one way; the state and the output live to its end."""
    for tensor in {t for used in way for t in used} | {last, state}:
        at = [n for n, used in enumerate(way) if tensor in used]
        if tensor == state:
            at = [0, len(way)]
        if tensor == last:
            at.append(len(way))
        yield tensor, min(at), max(at)


uses = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(1, 300), min_size=7, max_size=7),
    before=uses,
    then=uses,
    otherwise=uses,
    after=uses,
)
def test_tensors_alive_on_the_same_way_never_share_memory(
    counts: list[int], before: Uses, then: Uses, otherwise: Uses, after: Uses
) -> None:
    model = build(counts, before, then, otherwise, after)
    plan, sizes = model.program.finish("forward")
    total = plan.non_const_buffer_sizes[1]
    place: dict[int, Any] = {
        t: plan.values[t].val.allocation_info.memory_offset_low
        for t in {t for way in model.ways.values() for used in way for t in used}
        | {model.tensors[0], model.tensors[-1]}
    }
    assert all(place[t] + model.sizes[t] <= total for t in place)
    for way in model.ways.values():
        alive = list(lives(way, model.tensors[-1], model.tensors[0]))
        for a, first, last in alive:
            for b, start, end in alive:
                if a < b and first <= end and start <= last:
                    apart = place[a] + model.sizes[a] <= place[b]
                    assert apart or place[b] + model.sizes[b] <= place[a]
    assert sizes["states"] == model.sizes[model.tensors[0]]


def test_what_a_region_uses_is_alive_in_all_of_it() -> None:
    """A loop may come back to any instruction, and a jump may leave any out."""
    program = ProgramBuilder(Layout())
    first, second, third, after = (program.tensor([100]) for _ in range(4))
    condition = program.scalar_output(bool)
    with program.region():
        again = program.here()
        program.kernel("aten::add", "out", first)
        skip = program.jump_if_false(condition)
        program.kernel("aten::add", "out", second)
        program.land(skip)
        program.kernel("aten::add", "out", third)
        program.back_if_false(condition, again)
    program.kernel("aten::add", "out", after)
    program.output(after)
    plan, sizes = program.finish("forward")
    places = [plan.values[t].val.allocation_info.memory_offset_low for t in (first, second, third)]
    assert len(set(places)) == 3
    assert sizes["activations"] == 3 * 448  # what comes after the region has its bytes again
    jumps = [
        i.instr_args.destination_instruction
        for i in plan.chains[0].instructions
        if hasattr(i.instr_args, "destination_instruction")
    ]
    assert jumps == [3, again]


def test_many_regions_with_many_jumps_are_planned_quickly() -> None:
    """Experts are skipped one by one: 2 ** 640 ways through this program."""
    program = ProgramBuilder(Layout())
    condition, tensor = program.scalar_output(bool), program.tensor([4])
    for _ in range(10):
        with program.region():
            for _ in range(64):
                skip = program.jump_if_false(condition)
                program.kernel("aten::add", "out", tensor)
                program.land(skip)
    program.output(tensor)
    plan, _ = program.finish("forward")
    assert len(plan.chains[0].instructions) == 1280


def test_tensors_in_a_list_are_used_where_the_list_is() -> None:
    program = ProgramBuilder(Layout())
    one, two, other = (program.tensor([100]) for _ in range(3))
    program.kernel("aten::add", "out", one)
    program.kernel("aten::add", "out", two)
    program.kernel("aten::add", "out", other)
    program.kernel("aten::cat", "out", program.tensors([one, two]), other)
    program.output(other)
    plan, _ = program.finish("forward")
    places = [plan.values[t].val.allocation_info.memory_offset_low for t in (one, two, other)]
    assert len(set(places)) == 3


def test_two_branches_share_what_neither_needs_later() -> None:
    model = build([1, 1000, 1000, 1], [], [(1,)], [(2,)], [])
    _, sizes = model.program.finish("forward")
    assert sizes["activations"] < 4 * 1000 + 4 * 64


def test_a_view_lies_where_its_tensor_does_and_keeps_it_alive() -> None:
    program = ProgramBuilder(Layout())
    tensor, other = program.tensor([100]), program.tensor([100])
    view = program.view(tensor, [10, 10])
    program.kernel("aten::add", "out", tensor)
    program.kernel("aten::add", "out", other)
    program.kernel("aten::add", "out", view)
    program.output(other)
    plan, _ = program.finish("forward")
    offsets = [plan.values[t].val.allocation_info.memory_offset_low for t in (tensor, view, other)]
    assert offsets[0] == offsets[1] != offsets[2]


@pytest.mark.parametrize("value", [7, True, False, (2, 7), (1,)])
def test_a_constant_method_holds_its_answer(value: int | bool | tuple[int, ...]) -> None:
    plan = constant_method("get_it", value)
    items = value if isinstance(value, tuple) else (value,)
    found = [getattr(v.val, "bool_val", getattr(v.val, "int_val", None)) for v in plan.values]
    assert (plan.name, found, plan.inputs) == ("get_it", list(items), [])
    assert plan.outputs == list(range(len(items)))


def test_equal_scalars_are_stored_once() -> None:
    program = ProgramBuilder(Layout())
    assert program.integer(1) == program.integer(1)
    assert program.double(1.0) == program.double(1.0)
    assert len({program.integer(1), program.boolean(True), program.double(1.0)}) == 3
    assert program.null() == program.null()
