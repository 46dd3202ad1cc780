"""Give QNN a graph: its operations and tensors through ExecuTorch's bindings, without its passes.

Activations keep the layout `[1, 1, T, channels]`, QNN's own for a convolution with a kernel of one,
so that no map needs a transposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mobilepack.backends.qnn.encodings import Code, Matrix
from mobilepack.backends.qnn.graph import Graph, Kind, Step, Tensor

_PACKAGE = "qti.aisw"
_Array = npt.NDArray[Any]


class Operands(Protocol):
    """What is known of a graph's tensors beside their shapes."""

    def code(self, tensor: Tensor) -> Code | None:
        """Return a float tensor's encoding, None where the NPU computes in floats."""

    def constant(self, tensor: Tensor) -> _Array:
        """Return a table, a vector or a number in its own type."""

    def matrix(self, tensor: Tensor) -> Matrix | _Array:
        """Return a map's matrix; an array is float32 [inputs, outputs]."""

    def matrix_bits(self, tensor: Tensor) -> int:
        """Return the bits of a matrix's numbers."""

    def bias(self, bias: Tensor, x: Tensor, matrix: Tensor) -> tuple[_Array, _Array | None]:
        """Return a bias, and its scales if it is int32."""


class Assembler:
    """Makes a method's operations; holds the arrays that they point to."""

    def __init__(self, operands: Operands) -> None:
        import torch  # the names of integer types in QNN's configurations
        from executorch.backends.qualcomm.python import PyQnnManagerAdaptor

        self._qnn: Any = PyQnnManagerAdaptor
        self._torch: Any = torch
        self._operands = operands
        self._tensors: dict[str, Any] = {}
        self._arrays: list[_Array] = []
        self._operations: list[Any] = []
        self._roles: dict[str, tuple[str, str]] = {}

    def operations(self, graph: Graph) -> list[Any]:
        """Return a method's operations for `QnnManager.Compile`."""
        used = {t.name for step in graph.steps for t in step.inputs}
        inputs = [t for t in graph.inputs if t.name in used]
        for index, tensor in enumerate(inputs):
            self._roles[tensor.name] = ("APP_WRITE", f"input_{index}_{tensor.name}@0")
        for tensor in graph.outputs:
            self._roles[tensor.name] = ("APP_READ", f"output_{tensor.name}@0")
        for tensor in inputs:
            self._activation(tensor)
        for step in graph.steps:
            self._step(step)
        return [operation.GetOpWrapper() for operation in self._operations]

    # --- tensors ---

    def _activation(self, tensor: Tensor) -> Any:
        if tensor.name not in self._tensors:
            role, name = self._roles.get(tensor.name, ("NATIVE", f"{tensor.name}@0"))
            code = None if tensor.dtype == "int32" else self._operands.code(tensor)
            kind = "INT_32" if tensor.dtype == "int32" else _data_type(code)
            self._tensors[tensor.name] = self._wrapper(
                name, role, kind, _per_tensor(code), tensor.shape, None
            )
        return self._tensors[tensor.name]

    def _operand(self, tensor: Tensor) -> Any:
        if tensor.role != "constant":
            return self._activation(tensor)
        if tensor.name not in self._tensors:
            code, array = self._operands.code(tensor), self._operands.constant(tensor)
            self._tensors[tensor.name] = self._wrapper(
                tensor.name, "STATIC", _data_type(code), _per_tensor(code), array.shape, array
            )
        return self._tensors[tensor.name]

    def _matrix(self, tensor: Tensor) -> Any:
        found = self._operands.matrix(tensor)
        if not isinstance(found, Matrix):
            shape = (1, 1, *found.shape)
            return self._wrapper(tensor.name, "STATIC", "FLOAT_32", None, shape, found)
        integers = found.integers.numpy()
        largest = 2 ** (found.bits - 1) - 1
        limits = {"dtype": self._torch.int8, "quant_max": largest, "quant_min": -largest}
        config = {**limits, "axis": 3, "scale_offset": _scale_offsets(found.scales.numpy())}
        encoding = "AXIS_SCALE_OFFSET"
        if found.block_scales is not None:
            encoding, config = "BLOCKWISE_EXPANSION", {**limits, **self._blocks(found)}
        elif found.bits == 4:
            config["bitwidth"] = 4
            encoding = "BW_AXIS_SCALE_OFFSET"
        return self._wrapper(
            tensor.name, "STATIC", "SFIXED_POINT_8", (encoding, config), (1, 1, *integers.shape),
            integers,
        )  # fmt: skip

    def _blocks(self, matrix: Matrix) -> dict[str, Any]:
        """Return what QNN wants to know of a matrix in blocks, `[1, 1, inputs, outputs]`."""
        assert matrix.block_scales is not None  # noqa: S101  the caller has asked
        storage = self._qnn.Qnn_BlockwiseExpansionBlockScaleStorageType_t
        return {
            "axis": 3,
            "num_blocks_per_axis": matrix.block_scales.shape[1],
            "block_scale_offset": _scale_offsets(matrix.scales.numpy()),
            "block_scales": matrix.block_scales.flatten().numpy(),
            "block_scale_bitwidth": 4,
            "block_storage_type": (storage.QNN_BLOCKWISE_EXPANSION_BITWIDTH_SCALE_STORAGE_8),
        }

    def _bias(self, bias: Tensor, x: Tensor, matrix: Tensor) -> Any:
        array, scales = self._operands.bias(bias, x, matrix)
        if scales is None:
            return self._wrapper(bias.name, "STATIC", "FLOAT_32", None, array.shape, array)
        config = {"dtype": self._torch.int32, "quant_max": 2**31 - 1, "quant_min": -(2**31) + 1}
        config |= {"axis": 0, "scale_offset": _scale_offsets(scales)}
        return self._wrapper(
            bias.name,
            "STATIC",
            "SFIXED_POINT_32",
            ("AXIS_SCALE_OFFSET", config),
            array.shape,
            array,
        )

    def _wrapper(
        self, name: str, role: str, kind: str, encoding: tuple[str, dict[str, Any]] | None,
        shape: Sequence[int], data: _Array | None,
    ) -> Any:  # fmt: skip
        form, config = encoding or ("UNDEFINED", {})
        config = {k: self._torch_type(v) for k, v in config.items()}
        array = np.array([]) if data is None else np.ascontiguousarray(data)
        self._arrays.append(array)
        return self._qnn.TensorWrapper(
            name,
            getattr(self._qnn.Qnn_TensorType_t, f"QNN_TENSOR_TYPE_{role}"),
            getattr(self._qnn.Qnn_DataType_t, f"QNN_DATATYPE_{kind}"),
            getattr(self._qnn.Qnn_QuantizationEncoding_t, f"QNN_QUANTIZATION_ENCODING_{form}"),
            config,
            len(shape),
            list(shape),
            [],
            array,
            False,  # not copied: `_arrays` keeps it
        )

    def _torch_type(self, value: Any) -> Any:
        return getattr(self._torch, value) if isinstance(value, str) else value

    # --- operations ---

    def _step(self, step: Step) -> None:
        special = _SPECIAL.get(step.kind)
        if special is not None:
            special(self, step)
        else:
            self._operation(step, _NAMES[step.kind], [self._operand(t) for t in step.inputs])

    def _operation(self, step: Step, name: str, inputs: Sequence[Any]) -> Any:
        operation = self._qnn.PyQnnOpWrapper(step.output.name, _PACKAGE, name)
        operation.AddInputTensors(list(inputs))
        operation.AddOutputTensors([self._activation(step.output)])
        self._operations.append(operation)
        return operation

    def _integers(self, operation: Any, name: str, values: Any, dtype: str = "uint32") -> None:
        array = np.array(values, dtype=dtype)
        kind = {"uint32": "UINT_32", "int32": "INT_32"}[dtype]
        of = getattr(self._qnn.Qnn_DataType_t, f"QNN_DATATYPE_{kind}")
        operation.AddTensorParam(name, of, array.ndim, list(array.shape), array, True)

    def _scalar(self, operation: Any, name: str, value: Any, kind: str = "UINT_32") -> None:
        of = getattr(self._qnn.Qnn_DataType_t, f"QNN_DATATYPE_{kind}")
        operation.AddScalarParam(name, of, {"data": value})

    def linear(self, step: Step) -> None:
        """Add a convolution with a kernel of one."""
        x, matrix, *bias = step.inputs
        inputs = [self._activation(x), self._matrix(matrix)]
        inputs += [self._bias(b, x, matrix) for b in bias]
        operation = self._operation(step, "Conv2d", inputs)
        self._integers(operation, "stride", [1, 1])
        self._integers(operation, "pad_amount", [[0, 0], [0, 0]])
        self._integers(operation, "dilation", [1, 1])
        self._scalar(operation, "group", np.uint32(1))

    def normed(self, step: Step) -> None:
        """Add an RMS norm; QNN wants a weight and a bias.

        The HTP cuts the result off where it should round (-0.50 steps on average): a bias of half a
        step mends that (0.00).
        """
        x, *weight = step.inputs
        width = x.shape[-1]
        weights = self._operand(weight[0]) if weight else self._filled(step, "weight", 1.0, width)
        inputs = [self._activation(x), weights, self._filled(step, "bias", 0.0, width)]
        operation = self._operation(step, "RmsNorm", inputs)
        self._scalar(operation, "epsilon", np.float32(step.attributes["eps"]), "FLOAT_32")
        self._integers(operation, "axes", [len(x.shape) - 1])

    def _filled(self, step: Step, name: str, value: float, width: int) -> Any:
        """Return a vector of one value; a bias of 0 in integers is half a step of the result."""
        code, label = self._operands.code(step.output), f"{step.output.name}_{name}"
        if code is None:
            array: _Array = np.full(width, value, np.float32)
            return self._wrapper(label, "STATIC", "FLOAT_32", None, (width,), array)
        own = Code(1 / 65535 if value else code.scale / 2, 0, 16)
        array = np.full(width, round(value / own.scale) if value else 1, np.uint16)
        return self._wrapper(label, "STATIC", _data_type(own), _per_tensor(own), (width,), array)

    def layer_normed(self, step: Step) -> None:
        """Add a layer norm."""
        x, *rest = step.inputs
        vectors = dict(zip(step.attributes["vectors"], rest, strict=True))
        weight = vectors.get("weight")
        width = x.shape[-1]
        inputs = [
            self._activation(x),
            self._operand(weight) if weight else self._filled(step, "weight", 1.0, width),
        ]
        if "bias" in vectors:
            inputs.append(self._operand(vectors["bias"]))
        operation = self._operation(step, "LayerNorm", inputs)
        self._scalar(operation, "epsilon", np.float32(step.attributes["eps"]), "FLOAT_32")
        self._integers(operation, "axes", [len(x.shape) - 1])

    def looked_up(self, step: Step) -> None:
        """Add a look-up of rows."""
        operation = self._operation(step, "Gather", [self._operand(t) for t in step.inputs])
        self._scalar(operation, "axis", np.int32(0), "INT_32")

    def joined(self, step: Step) -> None:
        """Add a concatenation."""
        operation = self._operation(step, "Concat", [self._operand(t) for t in step.inputs])
        self._scalar(operation, "axis", np.uint32(step.attributes["axis"]))

    def turned(self, step: Step) -> None:
        """Add a permutation of axes."""
        operation = self._operation(step, "Transpose", [self._operand(step.inputs[0])])
        self._integers(operation, "perm", step.attributes["order"])

    def cut(self, step: Step) -> None:
        """Add a slice."""
        operation = self._operation(step, "StridedSlice", [self._operand(step.inputs[0])])
        self._integers(operation, "ranges", step.attributes["ranges"], "int32")

    def softened(self, step: Step) -> None:
        """Add a softmax over the last axis."""
        operation = self._operation(step, "Softmax", [self._operand(step.inputs[0])])
        self._scalar(operation, "axis", np.uint32(len(step.output.shape) - 1))

    def clamped(self, step: Step) -> None:
        """Add limits."""
        operation = self._operation(step, "ReluMinMax", [self._operand(step.inputs[0])])
        self._scalar(operation, "min_value", np.float32(step.attributes["low"]), "FLOAT_32")
        self._scalar(operation, "max_value", np.float32(step.attributes["high"]), "FLOAT_32")


def _data_type(code: Code | None) -> str:
    return "FLOAT_32" if code is None else f"UFIXED_POINT_{code.bits}"


def _per_tensor(code: Code | None) -> tuple[str, dict[str, Any]] | None:
    if code is None:
        return None
    limits = {"dtype": f"uint{code.bits}", "quant_max": code.largest, "quant_min": 0}
    return "SCALE_OFFSET", {**limits, "scale": code.scale, "offset": -code.zero_point}


def _scale_offsets(scales: _Array) -> _Array:
    found = np.zeros(len(scales), dtype=[("scale", np.float32), ("offset", np.int32)])
    found["scale"] = scales
    return found


_SPECIAL: dict[Kind, Callable[[Assembler, Step], None]] = {
    "linear": Assembler.linear,
    "rms_norm": Assembler.normed,
    "layer_norm": Assembler.layer_normed,
    "embedding": Assembler.looked_up,
    "gather": Assembler.looked_up,
    "cat": Assembler.joined,
    "permute": Assembler.turned,
    "slice": Assembler.cut,
    "softmax": Assembler.softened,
    "clamp": Assembler.clamped,
}
_NAMES: dict[Kind, str] = {
    "add": "ElementWiseAdd",
    "sub": "ElementWiseSubtract",
    "mul": "ElementWiseMultiply",
    "matmul": "MatMul",
    "convert": "Convert",
    "dequantize": "Dequantize",
    "gelu": "Gelu",
    "quantize": "Quantize",
    "relu": "Relu",
    "reshape": "Reshape",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
}
