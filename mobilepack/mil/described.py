"""What a package's description says to an app, held against the program that it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mobilepack.errors import UsageError
from mobilepack.mil.files import damaged
from mobilepack.mil.program import Function
from mobilepack.mil.types import BY_LABEL, DType, TensorType

# `FeatureType` of coremltools' FeatureTypes.proto: what an input of an ML Program may be. An app
# cannot hand over a dictionary, a sequence, a string or a bare number where MIL wants a tensor.
TENSORS = frozenset({"multiArrayType", "imageType", "stateType"})

# `ArrayFeatureType.ArrayDataType` of the same file.
ARRAY_TYPES: Mapping[int, DType] = {
    65568: BY_LABEL["fp32"],
    65552: BY_LABEL["fp16"],
    131104: BY_LABEL["int32"],
    131080: BY_LABEL["int8"],
}


def check_described(
    name: str, description: Any, functions: Mapping[str, Function], default: str
) -> None:
    """Check every described input against its function; one that nothing describes is not.

    Args:
        name: What messages call the program.
        description: The package's `ModelDescription`.
        functions: The program's, by name.
        default: The function that the description's own inputs are of.

    Raises:
        UsageError: `unsupported-input` for an input that is no tensor, `invalid-package` for one
            that the function lacks or has in another element type.
    """
    for function, item in _described(description, default):
        if function not in functions:
            raise damaged(name, f"it describes the function {function!r}, which it does not have")
        _check_input(name, functions[function], item)


def enumerated(description: Any, default: str) -> dict[tuple[str, str], int]:
    """Count the shapes of inputs whose shapes are listed, by (function, input)."""
    return {
        (function, item.name): len(item.type.multiArrayType.enumeratedShapes.shapes)
        for function, item in _described(description, default)
        if item.type.multiArrayType.WhichOneof("ShapeFlexibility") == "enumeratedShapes"
    }


def _described(description: Any, default: str) -> Iterator[tuple[str, Any]]:
    for function in description.functions:
        for item in (*function.input, *function.state):
            yield function.name, item
    for item in (*description.input, *description.state):
        yield default, item


def _check_input(name: str, function: Function, item: Any) -> None:
    kind = item.type.WhichOneof("Type")
    if kind not in TENSORS:
        raise UsageError(
            "unsupported-input",
            f"cannot read {name}",
            why=f"input {item.name!r} of {function.name!r} is described as {_called(kind)};"
            " an ML Program takes tensors",
            next="convert the model again with coremltools: ct.TensorType for each input",
        )
    types = {given.name: given.type for given in function.inputs}
    if item.name not in types:
        raise damaged(
            name, f"it describes an input {item.name!r} that {function.name!r} does not take"
        )
    told, taken = ARRAY_TYPES.get(item.type.multiArrayType.dataType), types[item.name]
    if isinstance(taken, TensorType) and told is not None and told is not taken.dtype:
        raise damaged(
            name,
            f"it describes {item.name!r} of {function.name!r} as {told.label},"
            f" the program takes {taken.dtype.label}",
        )


def _called(kind: str | None) -> str:
    return f"a {kind.removesuffix('Type')}" if kind else "nothing"
