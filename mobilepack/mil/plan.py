"""A function, planned once: steps in order, a place for each value, freed after its last use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mobilepack.errors import UsageError
from mobilepack.mil.bind import Bound, Call, Rounding, Slot, Source, bind, constant_value, finisher
from mobilepack.mil.compressed import Compressed
from mobilepack.mil.execute import PlannedBlock, Run, Step, execute
from mobilepack.mil.ops import OPERATORS, find
from mobilepack.mil.ops.registry import Kind
from mobilepack.mil.program import OPSETS, Block, Constant, Function, Operation
from mobilepack.mil.tensors import FAULTS, unreadable
from mobilepack.mil.types import StateType, TensorType
from mobilepack.mil.weights import WeightStore

STRUCTURAL = frozenset({"const", "read_state", "write_state", "cond", "while_loop"})


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned function."""

    function: Function
    block: PlannedBlock
    places: int


def plan_function(
    function: Function, program_name: str, store: WeightStore, rounding: Rounding
) -> Plan:
    """Plan a function.

    Raises:
        UsageError: It uses operators that are not known, or in a way that is not.
    """
    check_operators(function, program_name)
    planner = _Planner(function.opset, store, rounding)
    scope: dict[str, Source] = {}
    planned = planner.block(function.block, scope, function.inputs)
    return Plan(function, planned, planner.places)


def check_operators(function: Function, program_name: str) -> None:
    """Refuse a function with operators that have no kernel, naming each with its first place.

    Raises:
        UsageError: There is one.
    """
    unknown: dict[str, str] = {}
    for operation in function.block.walk():
        kind = operation.type
        if kind not in STRUCTURAL and find(kind, function.opset) is None:
            unknown.setdefault(kind, operation.name)
    if not unknown:
        return
    places = ", ".join(f"{kind} (first at {name!r})" for kind, name in unknown.items())
    newer = [kind for kind in unknown if kind in OPERATORS]
    more = f"; in {function.opset} there is no {', '.join(newer)}" if newer else ""
    raise UsageError(
        "unknown-operator",
        f"cannot interpret the function {function.name!r} of {program_name}",
        why=f"it uses {places} of {function.opset} ({OPSETS[function.opset]}){more}",
        next="docs/mil.md lists the operators that are known; convert the model without these",
    )


@dataclass(slots=True)
class _Planner:
    opset: str
    store: WeightStore
    rounding: Rounding
    places: int = 0
    _compressed: dict[str, tuple[Compressed, int]] = field(default_factory=dict)
    _constants: dict[str, Constant] = field(default_factory=dict)

    def place(self) -> int:
        self.places += 1
        return self.places - 1

    def block(self, block: Block, scope: dict[str, Source], inputs: Any) -> PlannedBlock:
        """Plan a block; `scope` gains its names, so pass a copy for a nested one."""
        entries = []
        for item in inputs:
            if isinstance(item.type, StateType):
                continue
            slot = Slot(self.place())
            scope[item.name] = slot
            entries.append(slot.index)
        own = set(entries)
        drafts: list[tuple[Operation, Bound, tuple[int, ...], bool]] = []
        for operation in block.operations:
            if self._constant(operation, scope):
                continue
            try:
                bound, structural = self._bound(operation, scope)
            except FAULTS as err:
                raise unreadable(operation, str(err)) from err
            outputs = tuple(self.place() for _ in operation.outputs)
            drafts.append((operation, bound, outputs, structural))
            scope |= {
                item.name: Slot(place)
                for item, place in zip(operation.outputs, outputs, strict=True)
            }
            own |= set(outputs)
        results = tuple(self._result(scope[name]) for name in block.outputs)
        kept = {place for place in results if isinstance(place, int)}
        steps = tuple(_with_frees(drafts, scope, own - kept))
        return PlannedBlock(steps, tuple(entries), results)

    def _result(self, source: Source) -> int | Tensor:
        if isinstance(source, Slot):
            return source.index
        value = constant_value(source, Kind.TENSOR, self.store)
        if not isinstance(value, Tensor):
            raise UsageError(
                "invalid-operation",
                "cannot return text from a function",
                why="an output of the program is a string constant",
                next="convert the model again without it",
            )
        return value

    def _constant(self, operation: Operation, scope: dict[str, Source]) -> bool:
        """Enter a constant's name; say whether the operation was one."""
        if operation.type == "const":
            if "val" not in operation.attributes:
                raise unreadable(operation, "it has no value")
            constant = operation.attributes["val"]
            scope[operation.name] = self._constants[operation.name] = constant
            return True
        if not operation.is_constant:
            return False
        for name in operation.names_used:
            if name not in self._constants and name not in self._compressed:
                raise unreadable(operation, f"its argument {name!r} is not constant")
        source = Compressed(operation, self.opset, self._compressed, self._constants)
        for index, output in enumerate(operation.outputs):
            scope[output.name] = self._compressed[output.name] = (source, index)
        return True

    def _bound(self, operation: Operation, scope: dict[str, Source]) -> tuple[Bound, bool]:
        if operation.type in STRUCTURAL:
            return self._structural(operation, scope), True
        entry = find(operation.type, self.opset)
        if entry is None:
            raise unreadable(operation, "its operator is not known")
        sources = {
            name: [scope[item] if isinstance(item, str) else item for item in bound]
            for name, bound in operation.inputs.items()
        }
        bound = bind(operation, entry, sources, self.store)
        finish = [self._finish(operation, item.type, entry.moves) for item in operation.outputs]
        return Bound(_finished(bound.call, finish), bound.slots), False

    def _finish(self, operation: Operation, kind: object, moves: bool) -> Call:
        if not isinstance(kind, TensorType):
            raise unreadable(operation, f"its output is {kind}")
        return finisher(kind, moves=moves, rounding=self.rounding)

    def _structural(self, operation: Operation, scope: dict[str, Source]) -> Bound:
        if operation.type == "read_state":
            name = _state_name(operation, "input")
            return Bound(lambda run: run.states[name], ())
        if operation.type == "write_state":
            return self._write(operation, scope)
        if operation.type == "cond":
            return self._cond(operation, scope)
        return self._loop(operation, scope)

    def _write(self, operation: Operation, scope: dict[str, Source]) -> Bound:
        name = _state_name(operation, "input")
        source = self._value(operation, "data", scope)

        def call(run: Run) -> tuple[()]:
            run.states[name] = run.frame[source] if isinstance(source, int) else source
            return ()

        return Bound(call, (source,) if isinstance(source, int) else ())

    def _value(self, operation: Operation, name: str, scope: dict[str, Source]) -> int | Tensor:
        bound = operation.inputs.get(name, ())
        if len(bound) != 1:
            raise unreadable(operation, f"it lacks the parameter {name!r}")
        item = bound[0]
        return self._result(scope[item] if isinstance(item, str) else item)

    def _cond(self, operation: Operation, scope: dict[str, Source]) -> Bound:
        condition = self._value(operation, "pred", scope)
        if len(operation.blocks) != 2:
            raise unreadable(operation, f"it has {len(operation.blocks)} blocks instead of 2")
        true, false = (self.block(b, dict(scope), b.inputs) for b in operation.blocks)

        def call(run: Run) -> Any:
            chosen = true if bool(_read(run, condition)) else false
            execute(chosen, run)
            results = chosen.results(run)
            return results[0] if len(results) == 1 else results

        return Bound(call, (condition,) if isinstance(condition, int) else ())

    def _loop(self, operation: Operation, scope: dict[str, Source]) -> Bound:
        variables = [
            self._result(scope[item] if isinstance(item, str) else item)
            for item in operation.inputs.get("loop_vars", ())
        ]
        if len(operation.blocks) != 2:
            raise unreadable(operation, f"it has {len(operation.blocks)} blocks instead of 2")
        test, body = (self.block(b, dict(scope), b.inputs) for b in operation.blocks)

        def call(run: Run) -> Any:
            values = tuple(_read(run, item) for item in variables)
            while _enter(test, run, values) and bool(test.results(run)[0]):
                _enter(body, run, values)
                values = body.results(run)
            return values[0] if len(values) == 1 else values

        return Bound(call, tuple(item for item in variables if isinstance(item, int)))


def _enter(block: PlannedBlock, run: Run, values: tuple[Any, ...]) -> bool:
    """Run a block with these arguments."""
    for place, value in zip(block.inputs, values, strict=True):
        run.frame[place] = value
    execute(block, run)
    return True


def _read(run: Run, source: int | Tensor) -> Any:
    return run.frame[source] if isinstance(source, int) else source


def _state_name(operation: Operation, parameter: str) -> str:
    bound = operation.inputs.get(parameter, ())
    if len(bound) != 1 or not isinstance(bound[0], str):
        raise unreadable(operation, "it names no state")
    return bound[0]


def _finished(call: Call, finish: list[Call]) -> Call:
    """Return a call whose results have their declared types."""
    if len(finish) == 1:
        end = finish[0]
        return lambda *given: end(call(*given))

    def several(*given: Any) -> tuple[Any, ...]:
        return tuple(end(value) for end, value in zip(finish, call(*given), strict=True))

    return several


def _with_frees(
    drafts: list[tuple[Operation, Bound, tuple[int, ...], bool]],
    scope: dict[str, Source],
    own: set[int],
) -> Iterator[Step]:
    """Yield steps; a place of this block is freed by the last step that needs it."""
    last: dict[int, int] = {}
    for index, (operation, bound, outputs, _) in enumerate(drafts):
        for place in (*outputs, *bound.slots, *_places_used(operation, scope)):
            last[place] = index
    frees: dict[int, list[int]] = {}
    for place, index in last.items():
        if place in own:
            frees.setdefault(index, []).append(place)
    for index, (operation, bound, outputs, structural) in enumerate(drafts):
        free = tuple(frees.get(index, ()))
        yield Step(bound.call, bound.slots, outputs, free, structural, operation)


def _places_used(operation: Operation, scope: dict[str, Source]) -> Iterator[int]:
    """Yield the places that nested blocks read from around them."""
    for block in operation.blocks:
        names = list(block.outputs) + [n for op in block.walk() for n in op.names_used]
        names += [n for op in block.walk() for inner in op.blocks for n in inner.outputs]
        for name in names:
            source = scope.get(name)
            if isinstance(source, Slot):
                yield source.index
