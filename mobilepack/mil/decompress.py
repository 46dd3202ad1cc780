"""The compressed constants of a function, decompressed one by one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from mobilepack.mil.compressed import Compressed
from mobilepack.mil.program import Constant, Function


def compressed_constants(function: Function) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value, in the declared type, of every constexpr operator's output.

    Those of nested blocks are left out.

    Raises:
        UsageError: An operator is not known, or its arguments do not fit.
    """
    constants: dict[str, Constant] = {}
    sources: dict[str, tuple[Compressed, int]] = {}
    for operation in function.block.operations:
        if operation.type == "const":
            constants[operation.name] = operation.attributes["val"]
        elif operation.is_constant:
            source = Compressed(operation, function.opset, sources, constants)
            values = source.outputs()
            for index, output in enumerate(operation.outputs):
                sources[output.name] = (source, index)
                yield output.name, values[index]
