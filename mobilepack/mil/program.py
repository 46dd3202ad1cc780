"""A MIL program in memory: functions, blocks, operations, constants; weights stay in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mobilepack.mil.storage import WeightFile, elements
from mobilepack.mil.types import DType, MilType, StateType, TensorType

# Operating-system level of an operator set (coremltools 9.0, _deployment_compatibility.py).
OPSETS = {
    "CoreML5": "iOS15",
    "CoreML6": "iOS16",
    "CoreML7": "iOS17",
    "CoreML8": "iOS18",
    "CoreML9": "iOS26",
}
# Least specificationVersion of a package with each (coremltools 9.0, __init__.py).
SPECIFICATIONS = {"CoreML5": 6, "CoreML6": 7, "CoreML7": 8, "CoreML8": 9, "CoreML9": 10}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a weight file holds a constant; nothing is read until `raw`."""

    file: WeightFile
    offset: int

    def raw(self, kind: TensorType) -> memoryview:
        """Return the mapped bytes of a constant of this type.

        Raises:
            UsageError: The file does not hold it, or is truncated.
        """
        return self.file.blob(self.offset, kind)


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that the program knows.

    Attributes:
        data: The elements (an array), a weight file's blob, or text (one per element).
    """

    type: TensorType
    data: np.ndarray | Stored | tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """Say whether it holds strings."""
        return self.type.dtype is DType.STRING

    @property
    def text(self) -> str:
        """Return the string of a scalar, "" of anything else."""
        return self.data[0] if isinstance(self.data, tuple) and len(self.data) == 1 else ""

    @property
    def key(self) -> tuple[object, ...]:
        """Return what two constants with the same content of one program share."""
        if isinstance(self.data, Stored):
            return ("blob", self.data.file.name, self.data.offset, str(self.type))
        if isinstance(self.data, tuple):
            return ("text", self.data)
        return ("value", self.data.tobytes(), str(self.type))

    def array(self) -> np.ndarray:
        """Return the elements (bf16 and fp8 as bits); a read-only view of a file where possible.

        Raises:
            UsageError: The weight file does not hold them.
            TypeError: It is text.
        """
        if isinstance(self.data, Stored):
            return elements(self.data.raw(self.type), self.type)
        if isinstance(self.data, tuple):
            raise TypeError("text has no elements")
        return self.data


@dataclass(frozen=True, slots=True)
class NamedType:
    """A value's name and type, where it is declared."""

    name: str
    type: MilType


Binding = str | Constant  # the name of a value, or the value itself


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator call.

    Attributes:
        inputs: Parameter → what is bound to it; several where the parameter is variadic.
        blocks: Nested blocks (`cond`: true and false; `while_loop`: condition and body).
        attributes: Constants that are not inputs; of `const` and of iOS 16's constexpr operators
            they are the arguments.
    """

    type: str
    inputs: Mapping[str, tuple[Binding, ...]]
    outputs: tuple[NamedType, ...]
    blocks: tuple[Block, ...] = ()
    attributes: Mapping[str, Constant] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what people call the operation: its first output, else its type."""
        return self.outputs[0].name if self.outputs else self.type

    @property
    def names_used(self) -> Iterator[str]:
        """Yield the names that it reads itself (nested blocks not included)."""
        for bound in self.inputs.values():
            yield from (item for item in bound if isinstance(item, str))

    @property
    def is_constant(self) -> bool:
        """Say whether its result is known before the program runs."""
        return self.type == "const" or self.type.startswith("constexpr_")


@dataclass(frozen=True, slots=True)
class Block:
    """Operations in order; a nested block sees the values around it."""

    inputs: tuple[NamedType, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]

    def walk(self) -> Iterator[Operation]:
        """Yield every operation, those of nested blocks after the operation that holds them."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True, slots=True)
class Function:
    """An entry point.

    Attributes:
        opset: Operator set, such as `CoreML8`; OPSETS has the system that it belongs to.
    """

    name: str
    opset: str
    inputs: tuple[NamedType, ...]
    block: Block

    @property
    def tensors(self) -> tuple[NamedType, ...]:
        """Return the inputs that a caller gives."""
        return tuple(item for item in self.inputs if not isinstance(item.type, StateType))

    @property
    def states(self) -> dict[str, TensorType]:
        """Return the tensors that outlive a call, by name."""
        return {i.name: i.type.wrapped for i in self.inputs if isinstance(i.type, StateType)}

    @property
    def outputs(self) -> tuple[NamedType, ...]:
        """Return the results with their types, in order."""
        declared = {o.name: o for op in self.block.operations for o in op.outputs}
        declared |= {i.name: i for i in self.inputs}
        return tuple(declared[name] for name in self.block.outputs)

    def computing(self) -> Iterator[Operation]:
        """Yield every operation that is not a constant, nested ones included."""
        return (op for op in self.block.walk() if not op.is_constant)


@dataclass(frozen=True, slots=True)
class Program:
    """All functions of a package.

    Attributes:
        name: What messages call it: the path it was read from.
        specification_version: `specificationVersion` of Model.proto (9: iOS 18).
        weight_bytes: Bytes of the weight files that its constants point into.
        default: The function that runs when none is named.
        enumerated: How many shapes an input may have where they are listed, by (function, input).
    """

    name: str
    specification_version: int
    functions: Mapping[str, Function]
    default: str
    weight_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    enumerated: Mapping[tuple[str, str], int] = field(default_factory=dict)
