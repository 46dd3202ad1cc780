"""Small packages written by hand: no coremltools is imported, so the tests stay fast."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobilepack.mil.program import SPECIFICATIONS
from mobilepack.mil.proto import messages
from mobilepack.mil.storage import BLOB_TYPES, NUMPY, SENTINEL
from mobilepack.mil.types import BY_LABEL, DType

BLOB_NUMBER = {dtype: number for number, dtype in BLOB_TYPES.items()}
Spec = tuple[str, tuple[int | None, ...]]  # ("fp16", (1, None)): None is a size known at run time


@dataclass
class Weights:
    """A weight file being written."""

    data: bytearray = field(default_factory=lambda: bytearray(struct.pack("<II", 0, 2) + bytes(56)))

    def add(self, dtype: DType, raw: bytes) -> int:
        """Append a blob; return the offset of its metadata."""
        offset = len(self.data)
        start = offset + 64
        record = struct.pack("<IIQQQ", SENTINEL, BLOB_NUMBER[dtype], len(raw), start, 0)
        self.data += record.ljust(64, b"\0") + raw
        self.data += bytes(-len(self.data) % 64)
        return offset


@dataclass
class Writer:
    """A package being written; its one function is `main`."""

    opset: str = "CoreML8"
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        self.model = messages().Model()
        self.model.specificationVersion = SPECIFICATIONS[self.opset]
        self.function = self.model.mlProgram.functions["main"]
        self.function.opset = self.opset
        self.block = self.function.block_specializations[self.opset]

    def input(self, name: str, spec: Spec) -> str:
        """Declare an input."""
        self._type(self.function.inputs.add(name=name).type, spec)
        return name

    def state(self, name: str, spec: Spec) -> str:
        """Declare a state."""
        kind = self.function.inputs.add(name=name).type.stateType.wrappedType
        self._type(kind, spec)
        return name

    def constant(self, name: str, array: Any, dtype: str | None = None) -> str:
        """Add a `const` in the program itself."""
        operation = self.block.operations.add(type="const")
        value = operation.attributes["val"]
        self._value(value, array, dtype)
        output = operation.outputs.add(name=name)
        output.type.CopyFrom(value.type)
        return name

    def stored(self, name: str, array: np.ndarray, dtype: str) -> str:
        """Add a `const` whose elements are in the weight file."""
        operation = self.block.operations.add(type="const")
        value = operation.attributes["val"]
        self._type(value.type, (dtype, array.shape))
        kind = BY_LABEL[dtype]
        value.blobFileValue.fileName = "@model_path/weights/weight.bin"
        value.blobFileValue.offset = self.weights.add(kind, packed(array, kind))
        operation.outputs.add(name=name).type.CopyFrom(value.type)
        return name

    def add(self, kind: str, output: tuple[str, Spec] | None = None, **inputs: Any) -> str:
        """Add an operation; inputs are names, tuples of names, or values."""
        operation = self.block.operations.add(type=kind)
        for name, bound in inputs.items():
            for item in bound if isinstance(bound, tuple) else (bound,):
                argument = operation.inputs[name].arguments.add()
                if isinstance(item, str):
                    argument.name = item
                else:
                    self._value(argument.value, item, None)
        if output is None:
            return ""
        self._type(operation.outputs.add(name=output[0]).type, output[1])
        return output[0]

    def compressed(self, kind: str, output: tuple[str, Spec], **attributes: Any) -> str:
        """Add a constexpr operation as iOS 16 writes it: arguments as attributes."""
        operation = self.block.operations.add(type=kind)
        for name, item in attributes.items():
            value = operation.attributes[name]
            array, dtype = item if isinstance(item, tuple) else (item, None)
            if dtype is not None and BY_LABEL[dtype].bits <= 16:
                array = np.asarray(array)
                self._type(value.type, (dtype, array.shape))
                raw = packed(array, BY_LABEL[dtype])
                value.immediateValue.tensor.bytes.values = raw
            else:
                self._value(value, array, dtype)
        self._type(operation.outputs.add(name=output[0]).type, output[1])
        return output[0]

    def returns(self, *names: str) -> None:
        """Name the results."""
        self.block.outputs.extend(names)

    def save(self, path: Path) -> Path:
        """Write the package."""
        inner = path / "Data" / "com.apple.CoreML"
        (inner / "weights").mkdir(parents=True)
        (inner / "model.mlmodel").write_bytes(self.model.SerializeToString())
        (inner / "weights" / "weight.bin").write_bytes(self.weights.data)
        items = {
            "A": {"path": "com.apple.CoreML/model.mlmodel"},
            "B": {"path": "com.apple.CoreML/weights"},
        }
        manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items}
        manifest["rootModelIdentifier"] = "A"
        (path / "Manifest.json").write_text(json.dumps(manifest))
        return path

    def _type(self, message: Any, spec: Spec) -> None:
        label, shape = spec
        message.tensorType.dataType = BY_LABEL[label].number
        message.tensorType.rank = len(shape)
        for size in shape:
            dimension = message.tensorType.dimensions.add()
            if size is None:
                dimension.unknown.variadic = False
            else:
                dimension.constant.size = size

    def _value(self, value: Any, item: Any, dtype: str | None) -> None:
        if isinstance(item, bytes):
            item = item.decode()
        if isinstance(item, str):
            self._type(value.type, ("string", ()))
            value.immediateValue.tensor.strings.values.append(item)
            return
        array = np.asarray(item)
        if array.dtype == np.int64:
            array = array.astype("i4")
        label = dtype or {"i": "int32", "b": "bool"}.get(array.dtype.kind, "fp32")
        self._type(value.type, (label, array.shape))
        tensor = value.immediateValue.tensor
        if label == "fp16":
            tensor.bytes.values = array.astype("f2").tobytes()
        elif label == "fp32":
            tensor.floats.values.extend(array.reshape(-1).tolist())
        elif label == "bool":
            tensor.bools.values.extend(array.reshape(-1).tolist())
        else:
            tensor.ints.values.extend(array.reshape(-1).tolist())


def packed(array: np.ndarray, kind: DType) -> bytes:
    """Return elements as a weight file stores them; the first in the lowest bits."""
    if not kind.is_sub_byte:
        return array.astype(NUMPY[kind]).tobytes()
    values = array.reshape(-1).astype("i2") & ((1 << kind.bits) - 1)
    bits = (values[:, None] >> np.arange(kind.bits)) & 1
    return np.packbits(bits.astype("u1").reshape(-1), bitorder="little").tobytes()


def linear_package(path: Path, *, seed: int = 0) -> tuple[Path, np.ndarray]:
    """Write y = relu(W x + b) with W fp16 [8, 6] in the weight file; return it and W."""
    weight = np.random.default_rng(seed).normal(size=(8, 6)).astype("f2")
    writer = Writer()
    x = writer.input("x", ("fp16", (1, 6)))
    w = writer.stored("w", weight, "fp16")
    b = writer.constant("b", np.arange(8) / 8, "fp16")
    y = writer.add("linear", ("y", ("fp16", (1, 8))), x=x, weight=w, bias=b)
    writer.returns(writer.add("relu", ("z", ("fp16", (1, 8))), x=y))
    return writer.save(path), weight
