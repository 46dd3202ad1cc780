"""The compressed constants of a function, decompressed when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from mobilepack.mil.compressed import Compressed
from mobilepack.mil.program import Constant, Function
from mobilepack.mil.types import TensorType


@dataclass(frozen=True, slots=True)
class CompressedConstant:
    """An output of a constexpr operator; `key` is equal for equal stored numbers."""

    name: str
    type: TensorType
    source: Compressed
    index: int

    @property
    def key(self) -> object:
        """Return what equal constants share."""
        return (self.source.key, self.index)

    def load(self) -> Tensor:
        """Decompress, in the declared type.

        Raises:
            UsageError: The operator is not known, or its arguments do not fit.
        """
        return self.source.outputs()[self.index]


def compressed_constants(function: Function) -> Iterator[CompressedConstant]:
    """Yield every constexpr operator's outputs; those of nested blocks are left out."""
    constants: dict[str, Constant] = {}
    sources: dict[str, tuple[Compressed, int]] = {}
    for operation in function.block.operations:
        if operation.type == "const":
            constants[operation.name] = operation.attributes["val"]
        elif operation.is_constant:
            source = Compressed(operation, function.opset, sources, constants)
            for index, output in enumerate(operation.outputs):
                sources[output.name] = (source, index)
                if isinstance(output.type, TensorType):
                    yield CompressedConstant(output.name, output.type, source, index)
