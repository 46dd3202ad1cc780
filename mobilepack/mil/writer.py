"""Writing a MIL program: functions of operations, and the `.mlpackage` around them.

The form is coremltools' own (9.0): constants are `const` operations, every operation carries its
name, and a program of several functions describes each.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilepack.mil.mlpackage import DATA, MANIFEST
from mobilepack.mil.parse import MODEL_PATH
from mobilepack.mil.program import SPECIFICATIONS
from mobilepack.mil.proto import messages
from mobilepack.mil.types import DType, StateType, TensorType

WEIGHTS = "weights/weight.bin"
_FOLDER = "com.apple.CoreML"
_SPEC = f"{_FOLDER}/model.mlmodel"
# Where a tensor's immediate values stand in the message.
_FIELDS = {DType.INT32: "ints", DType.FLOAT32: "floats", DType.BOOL: "bools"}
# ArrayFeatureType.ArrayDataType (coremltools 9.0, mlmodel/format/FeatureTypes.proto).
_ARRAYS = {DType.FLOAT16: 65552, DType.FLOAT32: 65568, DType.INT32: 131104}


@dataclass(frozen=True, slots=True)
class Blob:
    """A constant in the weight file."""

    type: TensorType
    offset: int


Literal = int | float | bool | str | tuple[int, ...] | np.ndarray


class FunctionWriter:
    """A function under construction; values are named by texts.

    Attributes:
        operators: How many operations compute something.
        inputs: Types by name; so are states and outputs.
    """

    def __init__(self, name: str, opset: str) -> None:
        self.name = name
        self.opset = opset
        self._message = messages().MIL__pb2.Function(opset=opset)
        self._block = self._message.block_specializations[opset]
        self._constants: dict[tuple[object, ...], str] = {}
        self._names: dict[str, int] = {}
        self.operators = 0
        self.inputs: dict[str, TensorType] = {}
        self.states: dict[str, TensorType] = {}
        self.outputs: dict[str, TensorType] = {}

    def input(self, name: str, kind: TensorType) -> str:
        """Add an input."""
        self._put(self._message.inputs.add(name=self._unique(name)).type, kind)
        self.inputs[name] = kind
        return name

    def state(self, name: str, kind: TensorType) -> str:
        """Add a state, a tensor that outlives the call."""
        self._put(self._message.inputs.add(name=self._unique(name)).type, StateType(kind))
        self.states[name] = kind
        return name

    def output(self, name: str, kind: TensorType) -> None:
        """Return a value."""
        self._block.outputs.append(name)
        self.outputs[name] = kind

    def operation(
        self,
        kind: str,
        name: str,
        results: Sequence[TensorType],
        arguments: Mapping[str, Any],
        attributes: Mapping[str, Blob | np.ndarray | int] | None = None,
    ) -> tuple[str, ...]:
        """Add an operation and return the names of its results.

        Args:
            kind: MIL's name of the operator.
            name: What its result is to be called; made unique.
            results: Types of its results.
            arguments: By parameter: the name of a value, several of them, a literal, or a blob.
            attributes: Constants of iOS 16's constexpr operators.
        """
        bound = {key: self._bound(name, key, value) for key, value in arguments.items()}
        message = self._block.operations.add(type=kind)
        self.operators += not kind.startswith("constexpr_")
        called = self._unique(name)
        for key, values in bound.items():
            argument = message.inputs[key]
            for value in values:
                if isinstance(value, str):
                    argument.arguments.add(name=value)
                else:
                    self._put_blob(argument.arguments.add().value, value)
        for key, constant in (attributes or {}).items():
            self._put_value(message.attributes[key], constant)
        self._put_value(message.attributes["name"], called)
        names = [called]
        if len(results) > 1:
            names = [self._unique(f"{name}_{i}") for i in range(len(results))]
        for result, label in zip(results, names, strict=False):
            self._put(message.outputs.add(name=label).type, result)
        return tuple(names[: len(results)])

    def message(self) -> Any:
        """Return the finished function."""
        return self._message

    def constant(self, name: str, value: Blob | Literal, dtype: DType | None = None) -> str:
        """Return the name of a constant, made once for equal values."""
        kind = value.type if isinstance(value, Blob) else _kind(value, dtype)
        key = _key(value, kind)
        if key not in self._constants:
            operation = self._block.operations.add(type="const")
            called = self._unique(name)
            self._put(operation.outputs.add(name=called).type, kind)
            self._put_value(operation.attributes["val"], value, kind)
            self._put_value(operation.attributes["name"], called)
            self._constants[key] = called
        return self._constants[key]

    def _bound(self, name: str, key: str, value: Any) -> tuple[str | Blob, ...]:
        if isinstance(value, Reference):
            return (value.name,)
        if isinstance(value, Blob):
            return (value,)
        if isinstance(value, list):
            return tuple(item.name for item in value)
        return (self.constant(f"{name}_{key}", value),)

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return self._unique(f"{name}_{count}") if count else name

    def _put_value(
        self, message: Any, value: Blob | Literal, kind: TensorType | None = None
    ) -> None:
        if isinstance(value, Blob):
            self._put_blob(message, value)
            return
        kind = kind or _kind(value, None)
        self._put(message.type, kind)
        tensor = message.immediateValue.tensor
        if isinstance(value, str):
            tensor.strings.values.append(value)
        elif kind.dtype in _FIELDS:
            getattr(tensor, _FIELDS[kind.dtype]).values.extend(np.ravel(value).tolist())
        else:
            tensor.bytes.values = np.ascontiguousarray(value).tobytes()

    def _put_blob(self, message: Any, blob: Blob) -> None:
        self._put(message.type, blob.type)
        message.blobFileValue.fileName = MODEL_PATH + WEIGHTS
        message.blobFileValue.offset = blob.offset

    def _put(self, message: Any, kind: TensorType | StateType) -> None:
        if isinstance(kind, StateType):
            self._put(message.stateType.wrappedType, kind.wrapped)
            return
        message.tensorType.dataType = kind.dtype.number
        message.tensorType.rank = len(kind.sizes)
        for size in kind.sizes:
            message.tensorType.dimensions.add().constant.size = size


@dataclass(frozen=True, slots=True)
class Reference:
    """A value of a function under construction, as an argument."""

    name: str


def _kind(value: Literal, dtype: DType | None) -> TensorType:
    if isinstance(value, str):
        return TensorType(DType.STRING, ())
    array = np.asarray(value)
    found = {"b": DType.BOOL, "i": DType.INT32, "f": DType.FLOAT16}[array.dtype.kind]
    if array.dtype == np.int8:
        found = DType.INT8
    return TensorType(dtype or found, array.shape)


def _key(value: Blob | Literal, kind: TensorType) -> tuple[object, ...]:
    if isinstance(value, np.ndarray):
        return (str(kind), value.tobytes())
    return (str(kind), value)


def write_mlpackage(
    path: Path, functions: Sequence[FunctionWriter], default: str, system: Mapping[str, str]
) -> None:
    """Write the specification and the manifest of a package whose weights are written already.

    Args:
        path: The package; `weight_file(path)` is there.
        functions: One, which becomes `main`'s description, or several (iOS 18 and later).
        default: Name of the default function.
        system: User-defined metadata.

    Raises:
        ValueError: Several functions for a system that knows one.
    """
    opset = functions[0].opset
    version = SPECIFICATIONS[opset]
    if len(functions) > 1 and version < SPECIFICATIONS["CoreML8"]:
        raise ValueError("several functions came with iOS 18")
    model = messages().Model(specificationVersion=version)
    model.mlProgram.version = 1
    for function in functions:
        model.mlProgram.functions[function.name].CopyFrom(function.message())
    if len(functions) == 1 and functions[0].name == "main":
        _describe(model.description, functions[0])
    else:
        for function in functions:
            _describe(model.description.functions.add(name=function.name), function)
        model.description.defaultFunctionName = default
    for key, value in system.items():
        model.description.metadata.userDefined[key] = value
    (path / DATA / _SPEC).write_bytes(model.SerializeToString(deterministic=True))
    (path / MANIFEST).write_text(json.dumps(_manifest(path.name), indent=4), encoding="utf-8")


def weight_file(path: Path) -> Path:
    """Return where a package's weights lie, and make the folder."""
    file = path / DATA / _FOLDER / WEIGHTS
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _describe(message: Any, function: FunctionWriter) -> None:
    ends = ((message.input, function.inputs), (message.output, function.outputs))
    for where, tensors in ends:
        for name, kind in tensors.items():
            array = where.add(name=name).type.multiArrayType
            array.shape.extend(kind.sizes)
            array.dataType = _ARRAYS[kind.dtype]
    for name, kind in function.states.items():
        array = message.state.add(name=name).type.stateType.arrayType
        array.shape.extend(kind.sizes)
        array.dataType = _ARRAYS[kind.dtype]


def _manifest(name: str) -> dict[str, object]:
    """Return the package's manifest; identifiers follow from the name, so that bytes repeat."""
    root, weights = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{part}")) for part in "mw")
    entry = {"author": _FOLDER, "name": "model.mlmodel", "path": _SPEC}
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            root: {**entry, "description": "CoreML Model Specification"},
            weights: {
                "author": _FOLDER,
                "description": "CoreML Model Weights",
                "name": "weights",
                "path": f"{_FOLDER}/weights",
            },
        },
        "rootModelIdentifier": root,
    }
