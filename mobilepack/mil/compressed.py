"""Compressed constants: constexpr operators and what their arguments are bound to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mobilepack.mil.ops import find
from mobilepack.mil.ops.registry import Kind
from mobilepack.mil.program import Binding, Constant, Operation
from mobilepack.mil.tensors import CARRIERS, FAULTS, ROUNDED, static, stored_tensor, unreadable
from mobilepack.mil.types import TensorType


@dataclass(frozen=True, slots=True)
class Compressed:
    """A constexpr operator and where its arguments come from.

    Attributes:
        sources: The constexpr operators of the function so far, by the names of their outputs.
        constants: Its constants, by name.
    """

    operation: Operation
    opset: str
    sources: Mapping[str, tuple[Compressed, int]]
    constants: Mapping[str, Constant]

    @property
    def arguments(self) -> dict[str, Binding]:
        """Return parameter → binding; before iOS 18 they are attributes."""
        found: dict[str, Binding] = {
            key: value for key, value in self.operation.attributes.items() if key != "name"
        }
        found |= {key: bound[0] for key, bound in self.operation.inputs.items()}
        return found

    @property
    def key(self) -> object:
        """Return what equal compressed constants share."""
        parts = [(name, self._key_of(bound)) for name, bound in sorted(self.arguments.items())]
        return (self.operation.type, tuple(parts))

    def _key_of(self, bound: Binding) -> object:
        if isinstance(bound, Constant):
            return bound.key
        if bound in self.constants:
            return self.constants[bound].key
        source, output = self.sources[bound]
        return (source.key, output)

    def constant(self, name: str) -> Constant | None:
        """Return an argument that is a constant, None for what another operator makes."""
        bound = self.arguments[name]
        return self.constants.get(bound) if isinstance(bound, str) else bound

    def outputs(self) -> tuple[Tensor, ...]:
        """Decompress; each output in its declared type.

        Raises:
            UsageError: The operator is not known, or its arguments do not fit.
        """
        entry = find(self.operation.type, self.opset)
        if entry is None:
            raise unreadable(self.operation, f"no such operator in {self.opset}")
        arguments = self.arguments
        try:
            values = {
                parameter.argument: self._value(parameter.name, parameter.kind)
                for parameter in entry.parameters
                if parameter.name in arguments
            }
            result = entry.kernel(**values)
        except FAULTS as err:
            raise unreadable(self.operation, str(err)) from err
        tensors = result if isinstance(result, tuple) else (result,)
        kinds = [output.type for output in self.operation.outputs]
        return tuple(
            _declared(self.operation, tensor, kind)
            for tensor, kind in zip(tensors, kinds, strict=True)
        )

    def _value(self, name: str, kind: Kind) -> object:
        constant = self.constant(name)
        if constant is None:
            source, output = self.sources[str(self.arguments[name])]
            return source.outputs()[output]
        return static(constant, kind) if kind is not Kind.TENSOR else stored_tensor(constant)


def _declared(operation: Operation, tensor: Tensor, kind: object) -> Tensor:
    if not isinstance(kind, TensorType) or tuple(tensor.shape) != kind.shape:
        raise unreadable(operation, f"it gives {list(tensor.shape)}, declared is {kind}")
    dtype = ROUNDED.get(kind.dtype, CARRIERS[kind.dtype])
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
