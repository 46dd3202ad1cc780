"""One operator as a program: coremltools' own result of it, and the interpreter's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.program import Block, Constant, Function, NamedType, Operation, Program
from mobilepack.mil.storage import NUMPY
from mobilepack.mil.types import BY_LABEL, DType, TensorType

OPSETS = {"iOS16": "CoreML6", "iOS17": "CoreML7", "iOS18": "CoreML8"}
_DTYPES = {numpy: dtype for dtype, numpy in NUMPY.items() if dtype.label in ("bool", "fp16")}
_DTYPES |= {
    np.dtype(name): BY_LABEL[label]
    for name, label in (
        ("f4", "fp32"),
        ("i4", "int32"),
        ("i2", "int16"),
        ("u2", "uint16"),
        ("i1", "int8"),
        ("u1", "uint8"),
    )
}


@dataclass(frozen=True)
class Call:
    """An operator with its arguments.

    Attributes:
        tensors: Arguments that are computed at run time; arrays, or tuples of arrays.
        constants: Arguments that the program knows: numbers, text, tuples of numbers.
    """

    name: str
    tensors: dict[str, Any]
    constants: dict[str, Any]
    opset: str = "iOS18"


@cache
def coremltools() -> Any:
    """Return coremltools, its builder and its function, imported once and silently."""
    import logging
    import warnings

    logging.disable(logging.WARNING)  # what it says about versions and about being on Linux
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder, Function
    logging.disable(logging.NOTSET)
    return ct, Builder, Function


def theirs(call: Call) -> list[tuple[np.ndarray, DType]]:
    """Return coremltools' numpy results with the types that it declares."""
    ct, builder, function = coremltools()
    from coremltools.converters.mil.mil import types

    with function({}, opset_version=getattr(ct.target, call.opset)):
        result = getattr(builder, call.name)(**call.tensors, **call.constants)
    found = []
    for item in result if isinstance(result, list | tuple) else [result]:
        assert item.val is not None, f"coremltools has no value of {call.name}"
        found.append((np.asarray(item.val), BY_LABEL[types.builtin_to_string(item.dtype)]))
    return found


def constant(value: Any) -> Constant:
    """Return a Python value or an array as MIL stores it."""
    if isinstance(value, str):
        return Constant(TensorType(DType.STRING, ()), (value,))
    array = np.asarray(value)
    if array.dtype in (np.dtype("i8"), np.dtype("f8")):
        array = array.astype("i4" if array.dtype.kind == "i" else "f4")
    return Constant(TensorType(_DTYPES[array.dtype], array.shape), array)


def program(call: Call, outputs: list[tuple[tuple[int, ...] | None, DType]]) -> Program:
    """Return a program whose only operation is the call; its tensors are inputs."""
    inputs: list[NamedType] = []
    bound: dict[str, tuple[Any, ...]] = {}
    for name, value in call.tensors.items():
        several = value if isinstance(value, tuple) else (value,)
        names = []
        for index, array in enumerate(several):
            kind = TensorType(_DTYPES[np.asarray(array).dtype], np.asarray(array).shape)
            inputs.append(NamedType(f"in_{name}_{index}", kind))
            names.append(f"in_{name}_{index}")
        bound[name] = tuple(names)
    bound |= {name: (constant(value),) for name, value in call.constants.items()}
    results = tuple(
        NamedType(f"out_{index}", TensorType(dtype, shape))
        for index, (shape, dtype) in enumerate(outputs)
    )
    operation = Operation(call.name, bound, results)
    block = Block((), tuple(item.name for item in results), (operation,))
    function = Function("main", OPSETS[call.opset], tuple(inputs), block)
    return Program(call.name, 9, {"main": function}, "main", 0)


def ours(
    call: Call, outputs: list[tuple[tuple[int, ...] | None, DType]], rounding: Any = "declared"
) -> list[np.ndarray]:
    """Return the interpreter's results; fp16 as float32."""
    single = program(call, outputs)
    given = {}
    for name, value in call.tensors.items():
        for index, array in enumerate(value if isinstance(value, tuple) else (value,)):
            whole = np.asarray(array)
            if whole.dtype == np.uint16:
                whole = whole.astype("i4")
            given[f"in_{name}_{index}"] = torch.from_numpy(whole.copy()).reshape(whole.shape)
    seen: list[str] = []
    runner = Interpreter(single, rounding)
    result = runner.run(given, observe=lambda op, name, value: seen.append(name))
    assert seen
    return [value.numpy() for value in result.values()]
