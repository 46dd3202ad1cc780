"""Compile graphs to context binaries, and ask the libraries what is in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilepack.backends.qnn.assemble import Assembler, Operands
from mobilepack.backends.qnn.constants import Constants, QuantisedConstants
from mobilepack.backends.qnn.encodings import Code, Codes, Matrix
from mobilepack.backends.qnn.graph import Graph, Tensor
from mobilepack.backends.qnn.options import Options, serialised


class Compiler:
    """A device of a SoC that makes contexts; use it in a `with`."""

    def __init__(self, options: Options) -> None:
        """Open the libraries.

        Raises:
            RuntimeError: They cannot make a device for this SoC.
        """
        from executorch.backends.qualcomm.python import PyQnnManagerAdaptor

        self.compile_spec = serialised(options)
        self._manager: Any = PyQnnManagerAdaptor.QnnManager(self.compile_spec)
        _check(self._manager.InitBackend(), "open a device")

    def context(self, graphs: Mapping[str, Graph], operands: Operands) -> bytes:
        """Return the binary of graphs by their names, as a delegate's data."""
        names = list(graphs)
        _check(self._manager.InitContext(names), "make a context")
        assemblers = [Assembler(operands) for _ in graphs]
        made = [a.operations(g) for a, g in zip(assemblers, graphs.values(), strict=True)]
        binary = self._manager.Compile(names, made)
        self._manager.DestroyContext()
        if not len(binary):
            raise RuntimeError(f"QNN compiled no context of {', '.join(names)}")
        return bytes(memoryview(binary))

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.Destroy()


def _check(error: Any, what: str) -> None:
    if error.value != 0:
        raise RuntimeError(f"QNN cannot {what}: error {error.value}")


class FloatOperands:
    """Everything in float32; the HTP computes in half precision."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants

    def code(self, tensor: Tensor) -> Code | None:
        """Return None."""
        return None

    def constant(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a constant in float32."""
        return self._constants.read(tensor).numpy()

    def matrix(self, tensor: Tensor) -> Matrix | npt.NDArray[Any]:
        """Return a matrix, float32 [inputs, outputs]."""
        return self._constants.read(tensor).t().contiguous().numpy()

    def matrix_bits(self, tensor: Tensor) -> int:
        """Return 16: the HTP stores half precision."""
        return 16

    def bias(
        self, bias: Tensor, x: Tensor, matrix: Tensor
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Return a bias in float32."""
        return self.constant(bias), None


class IntegerOperands:
    """Everything in integers but what the caller sees as floats."""

    def __init__(self, constants: QuantisedConstants, codes: Codes) -> None:
        self._constants, self._codes = constants, codes
        self._tables: dict[str, npt.NDArray[Any]] = {}

    def code(self, tensor: Tensor) -> Code | None:
        """Return a tensor's encoding."""
        return None if tensor.role == "outside" else self._codes[tensor.name]

    def constant(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a table or a vector as integers; made once for all methods."""
        if tensor.name not in self._tables:
            made = self._constants.integers(tensor, self._codes[tensor.name])
            self._tables[tensor.name] = made.numpy()
        return self._tables[tensor.name]

    def matrix(self, tensor: Tensor) -> Matrix | npt.NDArray[Any]:
        """Return a matrix."""
        return self._constants.matrix(tensor)

    def matrix_bits(self, tensor: Tensor) -> int:
        """Return 4 or 8."""
        return self._constants.bits(tensor)

    def bias(
        self, bias: Tensor, x: Tensor, matrix: Tensor
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Return a bias in int32 and its scales."""
        scales = self._constants.bias_scales(x, matrix, self._codes)
        integers = np.rint(self._constants.plain.read(bias).numpy() / scales.numpy())
        return integers.astype(np.int32), scales.numpy()


def tensor_kinds(tensors: Iterable[Tensor], operands: Operands) -> dict[str, str]:
    """Return the element type of what is bound."""
    found = {}
    for tensor in tensors:
        code = operands.code(tensor) if tensor.dtype == "float32" else None
        found[tensor.name] = tensor.dtype if code is None else f"uint{code.bits}"
    return found


def bound_inputs(graph: Graph) -> tuple[str, ...]:
    """Return the inputs that a graph reads, in the order in which they are bound."""
    used = {t.name for step in graph.steps for t in step.inputs}
    return tuple(t.name for t in graph.inputs if t.name in used)


def bound_outputs(graph: Graph) -> tuple[str, ...]:
    """Return the outputs of a graph in the order in which they are bound: as they are made."""
    wanted = {t.name for t in graph.outputs}
    return tuple(s.output.name for s in graph.steps if s.output.name in wanted)
