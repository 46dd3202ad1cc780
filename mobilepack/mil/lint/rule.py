"""What a rule is, what it looks at, and the table of all rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from mobilepack.mil.program import Constant, Function, Operation, Program
from mobilepack.mil.types import TensorType

Level = Literal["error", "warning", "note"]

# Where a rule comes from.
SOURCES = {
    "NE": "apple/coreai-models, neural_engine_rules.md",
    "CT": "https://apple.github.io/coremltools/docs-guides/",
    "ET": "https://docs.pytorch.org/executorch/stable/backends/coreml/coreml-overview.html",
    "TR": "https://github.com/apple/ml-ane-transformers",
    "anemll-profile": "anemll-profile's list of operators that the Neural Engine rejected",
}


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a rule applies; `operator` may be "input", "output", "state" or "program"."""

    operator: str
    name: str
    detail: str


@dataclass(slots=True)
class Subject:
    """A function as rules see it.

    Attributes:
        types: Type of every tensor value, by name; states with the type that they wrap.
        producer: The operation that computes a value, by the value's name.
    """

    program: Program
    function: Function
    types: dict[str, TensorType] = field(default_factory=dict)
    producer: dict[str, Operation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in self.function.inputs:
            if isinstance(item.type, TensorType):
                self.types[item.name] = item.type
        self.types |= self.function.states
        for operation in self.function.block.walk():
            for output in operation.outputs:
                self.producer[output.name] = operation
                if isinstance(output.type, TensorType):
                    self.types[output.name] = output.type

    def results(self) -> Iterator[tuple[Operation, str, TensorType]]:
        """Yield (operation, name, type) of every tensor that is computed."""
        for operation in self.function.computing():
            for output in operation.outputs:
                if isinstance(output.type, TensorType):
                    yield operation, output.name, output.type

    def argument(self, operation: Operation, name: str) -> str | Constant | None:
        """Return what an argument is bound to; a name or a constant, None where it is absent."""
        bound = operation.inputs.get(name, ())
        if not bound:
            return None
        item = bound[0]
        if isinstance(item, str) and (made := self.producer.get(item)) is not None:
            return made.attributes.get("val", item) if made.type == "const" else item
        return item

    def weight(self, operation: Operation, name: str) -> TensorType | None:
        """Return the type of an argument that is known before the program runs."""
        bound = self.argument(operation, name)
        if isinstance(bound, Constant):
            return bound.type
        made = self.producer.get(bound) if bound is not None else None
        return self.types.get(str(bound)) if made is not None and made.is_constant else None


Check = Callable[[Subject], Iterator[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an id that stays, what it says, why, what to do, and who says so."""

    id: str
    name: str
    level: Level
    why: str
    remedy: str
    source: str
    check: Check


RULES: dict[str, Rule] = {}


def rule(
    identifier: str, name: str, level: Level, *, why: str, remedy: str, source: str
) -> Callable[[Check], Check]:
    """Enter a rule into the table.

    Raises:
        ValueError: The id is taken.
    """

    def enter(check: Check) -> Check:
        if identifier in RULES:
            raise ValueError(f"{identifier} is taken")
        where = "; ".join(SOURCES.get(item, item) for item in source.split(", "))
        RULES[identifier] = Rule(identifier, name, level, why, remedy, where, check)
        return check

    return enter


def at(operation: Operation, name: str, detail: str) -> Hit:
    """Return a hit at an operator."""
    return Hit(operation.type, name, detail)
