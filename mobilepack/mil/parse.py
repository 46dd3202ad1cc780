"""From the protobuf to the typed program; every fault of the file is one error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from mobilepack.errors import UsageError
from mobilepack.mil.described import check_described, enumerated
from mobilepack.mil.files import Files, damaged
from mobilepack.mil.program import (
    OPSETS,
    SPECIFICATIONS,
    Binding,
    Block,
    Constant,
    Function,
    NamedType,
    Operation,
    Program,
    Stored,
)
from mobilepack.mil.proto import messages
from mobilepack.mil.storage import NUMPY, WeightFile, elements, open_weight_file
from mobilepack.mil.types import (
    BY_NUMBER,
    Dim,
    DType,
    ListType,
    MilType,
    OtherType,
    StateType,
    TensorType,
)

T = TypeVar("T")

MODEL_PATH = "@model_path/"
DEEPEST_BLOCK = 64  # nesting; a hostile file must not exhaust the stack


def parse_program(name: str, spec: memoryview, files: Files, model_path: str) -> Program:
    """Parse a model specification.

    Args:
        name: What messages call the program.
        spec: The serialised `Model`.
        files: The package; weight files are opened when a constant names one.
        model_path: Folder in `files` that `@model_path` stands for.

    Raises:
        UsageError: It is no ML Program, it is damaged, or its opset is not known.
    """
    model = _decode(name, spec)
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise _wrong_kind(name, kind)
    reader = _Reader(name, files, model_path)
    functions = {
        key: reader.function(key, value) for key, value in sorted(model.mlProgram.functions.items())
    }
    if not functions:
        raise damaged(name, "it has no function")
    _check_version(name, model.specificationVersion, functions.values())
    default = model.description.defaultFunctionName or (
        "main" if "main" in functions else next(iter(functions))
    )
    if default not in functions:
        raise damaged(name, f"its default function {default!r} is not among {list(functions)}")
    check_described(name, model.description, functions, default)
    return Program(
        name=name,
        specification_version=model.specificationVersion,
        functions=functions,
        default=default,
        weight_bytes=sum(len(file.data) for file in reader.weights.values()),
        metadata=dict(model.description.metadata.userDefined),
        enumerated=enumerated(model.description, default),
    )


def _check_version(name: str, version: int, functions: Iterable[Function]) -> None:
    """Refuse a package of a system that is not known, or whose functions want a later one."""
    newest = max(SPECIFICATIONS.values())
    if version > newest:
        raise UsageError(
            "unknown-version",
            f"cannot read {name}",
            why=f"its specification is of version {version}; the newest known is {newest} (iOS26)",
            next="convert the model for a system up to iOS 26, or update mobilepack",
        )
    for function in functions:
        least = SPECIFICATIONS[function.opset]
        if version < least:
            raise damaged(
                name,
                f"its function {function.name!r} has the operator set {function.opset}"
                f" ({OPSETS[function.opset]}), which needs specification version {least};"
                f" the package says {version}",
            )


def _decode(name: str, spec: memoryview) -> Any:
    module = messages()
    model = module.Model()
    from google.protobuf.message import DecodeError

    try:
        model.ParseFromString(spec)
    except DecodeError as err:
        raise damaged(
            name,
            "its model specification is no protobuf message: it is truncated, encrypted, or no"
            f" Core ML model ({err})",
        ) from err
    if not model.specificationVersion:
        raise damaged(name, "its model specification is empty: no specificationVersion")
    return model


def _wrong_kind(name: str, kind: str | None) -> UsageError:
    return UsageError(
        "not-an-ml-program",
        f"cannot read {name}",
        why=f"it is a {kind or 'model without content'}; only ML Programs are MIL",
        next="convert it again with coremltools: ct.convert(..., convert_to='mlprogram')",
    )


@dataclass(slots=True)
class _Reader:
    name: str
    files: Files
    model_path: str
    weights: dict[str, WeightFile] = field(default_factory=dict)

    def function(self, name: str, message: Any) -> Function:
        opset = message.opset
        if opset not in OPSETS:
            known = ", ".join(f"{key} ({system})" for key, system in OPSETS.items())
            raise UsageError(
                "unknown-opset",
                f"cannot read the function {name!r} of {self.name}",
                why=f"its operator set is {opset!r}; known are {known}",
                next="convert the model for one of these systems, or update mobilepack",
            )
        if opset not in message.block_specializations:
            raise damaged(self.name, f"function {name!r} has no block for its opset {opset}")
        block = self.block(message.block_specializations[opset], 0)
        function = Function(name, opset, self.named(message.inputs), block)
        self._check_names(function)
        return function

    def _check_names(self, function: Function) -> None:
        known = {item.name for item in function.inputs}
        self._check_block(function.name, function.block, known)

    def _check_block(self, where: str, block: Block, known: set[str]) -> None:
        known = known | {item.name for item in block.inputs}
        for operation in block.operations:
            missing = [name for name in operation.names_used if name not in known]
            if missing:
                raise damaged(
                    self.name,
                    f"{operation.type} {operation.name!r} of {where!r} reads {missing[0]!r}, which"
                    " nothing before it computes",
                )
            for inner in operation.blocks:
                self._check_block(where, inner, known)
            known |= {output.name for output in operation.outputs}
        missing = [name for name in block.outputs if name not in known]
        if missing:
            raise damaged(self.name, f"{where!r} returns {missing[0]!r}, which nothing computes")

    def block(self, message: Any, depth: int) -> Block:
        if depth > DEEPEST_BLOCK:
            raise damaged(self.name, f"its blocks are nested deeper than {DEEPEST_BLOCK}")
        return Block(
            self.named(message.inputs),
            tuple(message.outputs),
            tuple(self.operation(item, depth) for item in message.operations),
        )

    def operation(self, message: Any, depth: int) -> Operation:
        return Operation(
            message.type,
            {key: self.bindings(value) for key, value in message.inputs.items()},
            self.named(message.outputs),
            tuple(self.block(item, depth + 1) for item in message.blocks),
            {
                key: self.constant(value)
                for key, value in message.attributes.items()
                if value.type.WhichOneof("type") == "tensorType"
            },
        )

    def bindings(self, argument: Any) -> tuple[Binding, ...]:
        return tuple(
            item.name if item.WhichOneof("binding") == "name" else self.constant(item.value)
            for item in argument.arguments
        )

    def named(self, items: Any) -> tuple[NamedType, ...]:
        return tuple(NamedType(item.name, self.type(item.type)) for item in items)

    def type(self, message: Any) -> MilType:
        kind = message.WhichOneof("type")
        if kind == "tensorType":
            return self.tensor(message.tensorType)
        if kind == "stateType":
            wrapped = self.type(message.stateType.wrappedType)
            if isinstance(wrapped, TensorType):
                return StateType(wrapped)
        if kind == "listType":
            element = self.type(message.listType.type)
            if isinstance(element, TensorType):
                return ListType(element)
        return OtherType(kind or "nothing")

    def tensor(self, message: Any) -> TensorType:
        dtype = BY_NUMBER.get(message.dataType)
        if dtype is None:
            raise damaged(self.name, f"it uses element type {message.dataType}, which is not known")
        sizes: list[Dim] = []
        for item in message.dimensions:
            if item.WhichOneof("dimension") == "constant":
                sizes.append(item.constant.size)
            elif item.unknown.variadic:
                return TensorType(dtype, None)
            else:
                sizes.append(None)
        return TensorType(dtype, tuple(sizes))

    def constant(self, message: Any) -> Constant:
        kind = self.type(message.type)
        if not isinstance(kind, TensorType) or not kind.is_static:
            raise damaged(self.name, f"it has a constant of type {kind}")
        if message.WhichOneof("value") == "blobFileValue":
            blob = message.blobFileValue
            stored = Stored(self.weight_file(blob.fileName), blob.offset)
            stored.raw(kind)  # a truncated file is told before anything is done with the rest
            return Constant(kind, stored)
        return Constant(kind, self.immediate(kind, message.immediateValue))

    def weight_file(self, path: str) -> WeightFile:
        if path not in self.weights:
            if not path.startswith(MODEL_PATH):
                raise damaged(self.name, f"a constant is in {path!r}, not below @model_path")
            inner = f"{self.model_path}/{path.removeprefix(MODEL_PATH)}"
            data = self.files.read(inner)
            self.weights[path] = open_weight_file(f"{self.name}/{inner}", data)
        return self.weights[path]

    def immediate(self, kind: TensorType, value: Any) -> np.ndarray | tuple[str, ...]:
        if value.WhichOneof("value") != "tensor":
            raise damaged(self.name, f"a constant of type {kind} has no tensor as its value")
        which = value.tensor.WhichOneof("value")
        items = getattr(value.tensor, which).values if which else ()
        return self._elements(kind, which, items)

    def _elements(
        self, kind: TensorType, which: str | None, items: Any
    ) -> np.ndarray | tuple[str, ...]:
        if kind.dtype is DType.STRING:
            return self._counted(kind, len(items), lambda: tuple(items))
        if which == "bytes":
            whole = len(items) >= kind.stored_bytes
            return self._counted(kind, kind.elements if whole else 0, lambda: elements(items, kind))
        return self._counted(
            kind,
            len(items),
            lambda: np.array(items, dtype=NUMPY.get(kind.dtype, np.dtype("i1"))).reshape(
                kind.sizes
            ),
        )

    def _counted(self, kind: TensorType, count: int, make: Callable[[], T]) -> T:
        if count != math.prod(kind.sizes):
            raise damaged(self.name, f"a constant of type {kind} has {count} elements")
        return make()
