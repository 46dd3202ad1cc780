"""Constants as tensors: mapped where they are stored plainly, decompressed once where they are not.

A large constant exists once per program, however many functions use it. What is made of the file's
bytes (fp32 copies that compute fastest, decompressed weights) is kept while a budget lasts; beyond
it, it is made again for each use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.errors import UsageError
from mobilepack.mil.ops import find
from mobilepack.mil.ops.registry import Kind
from mobilepack.mil.program import Binding, Constant, Operation, Stored
from mobilepack.mil.types import DType, TensorType

DEFAULT_BUDGET_BYTES = 4 << 30
# Elements from which a constant is a weight: kept once and under the budget.
LARGE = 1 << 14
# fp32 bytes of a weight's rows that are converted and multiplied at a time. Measured on a
# [49152, 576] fp16 weight and one row of input, 2 MB of second-level cache: 256 KB 9.5 ms,
# 1 MB 7.9 ms, 2 MB 11.2 ms; the whole in fp32 7.4 ms.
BLOCK_BYTES = 1 << 20

# What the interpreter computes with, by declared type.
CARRIERS = {
    DType.BOOL: torch.bool,
    DType.FLOAT16: torch.float32,
    DType.FLOAT32: torch.float32,
    DType.FLOAT64: torch.float64,
    DType.BFLOAT16: torch.float32,
    DType.FLOAT8E4M3FN: torch.float32,
    DType.FLOAT8E5M2: torch.float32,
    DType.INT4: torch.int8,
    DType.INT8: torch.int8,
    DType.INT16: torch.int16,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.UINT1: torch.uint8,
    DType.UINT2: torch.uint8,
    DType.UINT3: torch.uint8,
    DType.UINT4: torch.uint8,
    DType.UINT6: torch.uint8,
    DType.UINT8: torch.uint8,
    DType.UINT16: torch.int32,
    DType.UINT32: torch.int64,
    DType.UINT64: torch.int64,
}
# Types whose values torch has, but whose bits numpy sees as integers.
_BITS = {
    DType.BFLOAT16: torch.bfloat16,
    DType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    DType.FLOAT8E5M2: torch.float8_e5m2,
}
# Types that round when a value is stored, and what they round to.
ROUNDED = {DType.FLOAT16: torch.float16, **_BITS}


def stored_tensor(constant: Constant) -> Tensor:
    """Return a constant in the type it is stored in; a view of the file where possible."""
    array = constant.array()
    dtype = constant.type.dtype
    if dtype in (DType.UINT16, DType.UINT32, DType.UINT64):
        return torch.from_numpy(array.astype("i8")).to(CARRIERS[dtype])
    if not array.flags.writeable and not isinstance(constant.data, Stored):
        array = array.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a view of a delegate in a .pte's bytes
        tensor = torch.from_numpy(array.reshape(-1)).reshape(array.shape)
    return tensor.view(_BITS[dtype]) if dtype in _BITS else tensor


def carried(tensor: Tensor, dtype: DType) -> Tensor:
    """Return a value in what its declared type is carried in."""
    carrier = CARRIERS[dtype]
    return tensor if tensor.dtype == carrier else tensor.to(carrier)


@dataclass(slots=True)
class Weight:
    """A large constant.

    Attributes:
        load: Makes the tensor of the stored type from the file.
        mapped: Whether `load` is a view of the file and costs no memory.
    """

    type: TensorType
    store: WeightStore
    load: Callable[[], Tensor]
    mapped: bool
    _native: Tensor | None = None
    _full: Tensor | None = None
    _matrix: Weight | None = None

    def native(self) -> Tensor:
        """Return the weight in its declared type (fp16 as fp16)."""
        if self._native is None:
            tensor = self.load()
            if not self.mapped and not self.store.reserve(tensor.nbytes):
                return tensor
            self._native = tensor
        return self._native

    def full(self) -> Tensor:
        """Return the weight as operators compute with it (fp16 as fp32)."""
        if self._full is not None:
            return self._full
        native = self.native()
        full = carried(native, self.type.dtype)
        if full is native:
            return full
        if not self.store.keeps_half and self.store.reserve(full.nbytes):
            self._full = full
            if self._native is not None and not self.mapped:
                self.store.release(self._native.nbytes)
            self._native = None
        return full

    def flat(self) -> Weight:
        """Return a convolution's weight of kernel size 1 as a matrix [out, in]; made once."""
        if self._matrix is None:
            kind = TensorType(self.type.dtype, self.type.shape and self.type.shape[:2])
            sizes = kind.sizes
            self._matrix = Weight(kind, self.store, lambda: self.load().reshape(sizes), self.mapped)
        return self._matrix

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x @ weight.T + bias for a weight [out, in].

        One that is kept as fp16 is widened and multiplied in blocks of rows.
        """
        if not self.store.keeps_half:
            return functional.linear(x, self.full(), bias)
        weight = self.native()
        if weight.dtype == x.dtype:
            return functional.linear(x, weight, bias)
        rows = max(BLOCK_BYTES // (4 * weight.shape[1]), 1)
        scratch = torch.empty(min(rows, weight.shape[0]), weight.shape[1])
        parts = []
        for start in range(0, weight.shape[0], rows):
            block = weight[start : start + rows]
            wide = scratch[: block.shape[0]]
            wide.copy_(block)
            parts.append(functional.linear(x, wide))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return whole if bias is None else whole + bias


@dataclass(slots=True)
class WeightStore:
    """The weights of one program.

    Attributes:
        budget_bytes: Private memory that weights may take; mapped files are not counted.
        keeps_half: Whether fp16 weights stay fp16 because fp32 copies would pass the budget.
    """

    budget_bytes: int = DEFAULT_BUDGET_BYTES
    used_bytes: int = 0
    keeps_half: bool = False
    _known: dict[object, Weight] = field(default_factory=dict)

    def reserve(self, size: int) -> bool:
        """Take memory from the budget if there is enough."""
        if self.used_bytes + size > self.budget_bytes:
            return False
        self.used_bytes += size
        return True

    def release(self, size: int) -> None:
        """Give memory back."""
        self.used_bytes -= size

    def plan(self) -> None:
        """Decide how fp16 weights are kept, once all are known and before any is used."""
        full = sum(weight.type.elements * 4 for weight in self._known.values())
        self.keeps_half = full > self.budget_bytes

    def plain(self, constant: Constant) -> Weight:
        """Return the weight of a constant that is not compressed."""
        key = constant.key
        if key not in self._known:
            mapped = isinstance(constant.data, Stored) and not constant.type.dtype.is_sub_byte
            self._known[key] = Weight(constant.type, self, lambda: stored_tensor(constant), mapped)
        return self._known[key]

    def compressed(self, source: Compressed, output: int) -> Weight:
        """Return the weight of one output of a constexpr operator."""
        key = (source.key, output)
        if key not in self._known:
            kind = source.operation.outputs[output].type
            if not isinstance(kind, TensorType):
                raise unreadable(source.operation, f"its output is {kind}")

            def load() -> Tensor:
                return source.outputs()[output]

            self._known[key] = Weight(kind, self, load, mapped=False)
        return self._known[key]


def unreadable(operation: Operation, why: str) -> UsageError:
    """Return the error of an operator that cannot be computed as it stands."""
    return UsageError(
        "invalid-operation",
        f"cannot compute {operation.type} {operation.name!r}",
        why=why,
        next="check the program with `mobilepack mil show`, or convert the model again",
    )


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

    def outputs(self) -> tuple[Tensor, ...]:
        """Decompress; each output in its declared type.

        Raises:
            UsageError: The operator is not known, or its arguments do not fit.
        """
        entry = find(self.operation.type, self.opset)
        if entry is None:
            raise unreadable(self.operation, f"no such operator in {self.opset}")
        values: dict[str, object] = {}
        arguments = self.arguments
        for parameter in entry.parameters:
            if parameter.name in arguments:
                bound = arguments[parameter.name]
                values[parameter.argument] = self._value(bound, parameter.kind)
        try:
            result = entry.kernel(**values)
        except (RuntimeError, TypeError, ValueError, IndexError) as err:
            raise unreadable(self.operation, str(err)) from err
        tensors = result if isinstance(result, tuple) else (result,)
        kinds = [output.type for output in self.operation.outputs]
        return tuple(
            _declared(self.operation, tensor, kind)
            for tensor, kind in zip(tensors, kinds, strict=True)
        )

    def _value(self, bound: Binding, kind: Kind) -> object:
        constant = self.constants.get(bound) if isinstance(bound, str) else bound
        if constant is None:
            source, output = self.sources[str(bound)]
            return source.outputs()[output]
        return static(constant, kind) if kind is not Kind.TENSOR else stored_tensor(constant)


def _declared(operation: Operation, tensor: Tensor, kind: object) -> Tensor:
    if not isinstance(kind, TensorType) or tuple(tensor.shape) != kind.shape:
        raise unreadable(operation, f"it gives {list(tensor.shape)}, declared is {kind}")
    dtype = ROUNDED.get(kind.dtype, CARRIERS[kind.dtype])
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def static(constant: Constant, kind: Kind) -> object:
    """Return a constant as a kernel's plain Python argument."""
    if kind is Kind.TEXT:
        return constant.text
    items = stored_tensor(constant).reshape(-1).tolist()
    if kind is Kind.INTS:
        return tuple(int(item) for item in items)
    if kind is Kind.BOOLS:
        return tuple(bool(item) for item in items)
    convert = {Kind.INT: int, Kind.FLOAT: float, Kind.BOOL: bool}[kind]
    return convert(items[0])
