"""Run a `.pte` whose delegates are Core ML: packages in the interpreter, other kernels in torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mobilepack.errors import UsageError
from mobilepack.mil.bind import Rounding
from mobilepack.mil.delegates import CoremlDelegate, Delegates
from mobilepack.mil.execute import Observer
from mobilepack.mil.interpreter import Interpreter, State
from mobilepack.mil.pte import (
    DelegateCall,
    JumpIfFalse,
    KernelCall,
    ListValue,
    Method,
    Move,
    PteProgram,
    TensorValue,
    Value,
)
from mobilepack.mil.tensors import FAULTS
from mobilepack.mil.types import BY_LABEL, TensorType
from mobilepack.mil.weights import DEFAULT_BUDGET_BYTES, share_bytes

# ScalarType of executorch's scalar_type.fbs → torch's.
SCALARS = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
    15: torch.bfloat16,
}

LABELS = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "fp16",
    6: "fp32",
    7: "fp64",
    11: "bool",
    15: "bf16",
}


@dataclass(slots=True)
class _Loaded:
    """A method with the values that outlive a call."""

    method: Method
    delegates: tuple[CoremlDelegate | None, ...]
    kept: dict[int, Any]


@dataclass(slots=True)
class PteRunner:
    """The methods of a program.

    Attributes:
        share_states: Whether delegates of one package share states of the same name, as methods
            with one KV cache want it; without, each delegate has its own, as ExecuTorch's runtime
            keeps them.
    """

    pte: PteProgram
    rounding: Rounding = "declared"
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    share_states: bool = False
    delegates: Delegates = field(init=False)
    _interpreters: dict[str, Interpreter] = field(default_factory=dict)
    _states: dict[object, State] = field(default_factory=dict)
    _loaded: dict[str, _Loaded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.delegates = Delegates(self.pte)

    def inputs(self, method: str) -> dict[str, TensorType]:
        """Return the types of a method's inputs, in order, as `input_0`, `input_1`, ...

        Raises:
            UsageError: There is no such method, or it cannot be run here.
        """
        loaded = self._load(method)
        found = {}
        for index, place in enumerate(loaded.method.inputs):
            value = self._declared(loaded, place)
            if not isinstance(value, TensorValue) or value.scalar not in LABELS:
                raise _cannot(self.pte, method, f"its input {index} is no tensor")
            found[f"input_{index}"] = TensorType(BY_LABEL[LABELS[value.scalar]], value.sizes)
        return found

    def reset(self) -> None:
        """Forget states and buffers."""
        self._states.clear()
        self._loaded.clear()

    def run(
        self, inputs: Sequence[Tensor], method: str = "forward", observe: Observer | None = None
    ) -> list[Tensor]:
        """Run a method with its inputs in order and return its outputs in order.

        Raises:
            UsageError: There is no such method, the inputs do not fit it, or it uses something
                that is neither Core ML nor a kernel of torch.
        """
        loaded = self._load(method)
        values = dict(loaded.kept)
        places = loaded.method.inputs
        if len(inputs) != len(places):
            raise _cannot(
                self.pte, method, f"it takes {len(places)} inputs, given are {len(inputs)}"
            )
        values |= dict(zip(places, inputs, strict=True))
        with torch.inference_mode():
            self._instructions(loaded, values, observe)
        return [self._tensor(loaded, place, values) for place in loaded.method.outputs]

    def _instructions(
        self, loaded: _Loaded, values: dict[int, Any], observe: Observer | None
    ) -> None:
        steps, at = loaded.method.instructions, 0
        while 0 <= at < len(steps):
            step = steps[at]
            at += 1
            if isinstance(step, DelegateCall):
                self._delegate(loaded, step, values, observe)
            elif isinstance(step, KernelCall):
                self._kernel(loaded, step, values)
            elif isinstance(step, Move):
                values[step.target] = self._argument(loaded, step.source, values)
            elif isinstance(step, JumpIfFalse) and not bool(
                self._argument(loaded, step.condition, values)
            ):
                at = step.target

    def _load(self, method: str) -> _Loaded:
        if method not in self._loaded:
            delegates = self.delegates.of(method)
            plan = self.pte.methods[method]
            for item, found in zip(plan.delegates, delegates, strict=True):
                if found is None:
                    why = f"it calls a delegate of {item.id}"
                    raise _cannot(self.pte, method, why)
            self._loaded[method] = _Loaded(plan, delegates, {})
        return self._loaded[method]

    def _delegate(
        self, loaded: _Loaded, step: DelegateCall, values: dict[int, Any], observe: Observer | None
    ) -> None:
        method = loaded.method.name
        if not 0 <= step.delegate < len(loaded.delegates):
            raise _cannot(self.pte, method, f"it calls delegate {step.delegate}")
        delegate = loaded.delegates[step.delegate]
        count = len(delegate.inputs) if delegate is not None else 0
        if delegate is None or len(step.args) != count + len(delegate.outputs):
            raise _cannot(self.pte, method, "a delegate's arguments do not fit its package")
        if delegate.key not in self._interpreters:
            share = share_bytes(self.budget_bytes, len({d.key for d in loaded.delegates if d}))
            self._interpreters[delegate.key] = Interpreter(delegate.program, self.rounding, share)
        given = {
            name: self._tensor(loaded, place, values)
            for name, place in zip(delegate.inputs, step.args[:count], strict=True)
        }
        results = self._interpreters[delegate.key].run(
            given,
            delegate.function,
            state=self._state(method, step.delegate, delegate),
            observe=observe,
        )
        for name, place in zip(delegate.outputs, step.args[count:], strict=True):
            values[place] = self._as_declared(loaded, place, results[name])

    def _state(self, method: str, index: int, delegate: CoremlDelegate) -> State:
        key: object = delegate.key if self.share_states else (method, index)
        state = self._states.setdefault(key, {})
        fresh = self._interpreters[delegate.key].new_state(delegate.function)
        for name, value in fresh.items():
            state.setdefault(name, value)
        return state

    def _as_declared(self, loaded: _Loaded, place: int, tensor: Tensor) -> Tensor:
        declared = self._declared(loaded, place)
        if not isinstance(declared, TensorValue):
            return tensor
        wanted = self._dtype(loaded.method.name, declared)
        keep = self.rounding == "none" and wanted == torch.float16
        return tensor if keep or tensor.dtype == wanted else tensor.to(wanted)

    def _kernel(self, loaded: _Loaded, step: KernelCall, values: dict[int, Any]) -> None:
        operator = self._operator(loaded.method.name, step)
        schema = operator._schema.arguments
        if len(step.args) < len(schema):
            raise _cannot(self.pte, loaded.method.name, f"{step.operator} lacks arguments")
        given = [self._argument(loaded, place, values) for place in step.args[: len(schema)]]
        plain = [v for v, a in zip(given, schema, strict=True) if not a.kwarg_only]
        named = {a.name: v for v, a in zip(given, schema, strict=True) if a.kwarg_only}
        try:
            result = operator(*plain, **named)
        except FAULTS as err:
            why = f"{step.operator} does not take its arguments: {err}"
            raise _cannot(self.pte, loaded.method.name, why) from err
        results = result if isinstance(result, tuple | list) else (result,)
        values |= dict(zip(step.args[len(schema) :], results, strict=False))

    def _operator(self, method: str, step: KernelCall) -> Any:
        namespace, _, name = step.operator.partition("::")
        packet = getattr(getattr(torch.ops, namespace), name, None) if namespace == "aten" else None
        found = getattr(packet, step.overload or "default", None)
        if found is None:
            full = f"{step.operator}.{step.overload}".rstrip(".")
            raise _cannot(self.pte, method, f"it calls {full} outside its delegates")
        return found

    def _tensor(self, loaded: _Loaded, place: int, values: dict[int, Any]) -> Tensor:
        value = self._argument(loaded, place, values)
        return value if isinstance(value, Tensor) else torch.tensor(value)

    def _argument(self, loaded: _Loaded, place: int, values: dict[int, Any]) -> Any:
        """Return a value; tensors that nothing has written yet begin as the file says, or as 0."""
        if place in values:
            return values[place]
        declared = self._declared(loaded, place)
        if isinstance(declared, ListValue):
            return self._list(loaded, declared, values)
        if not isinstance(declared, TensorValue):
            return declared
        tensor = self._initial(loaded.method.name, declared)
        values[place] = loaded.kept[place] = tensor
        return tensor

    def _declared(self, loaded: _Loaded, place: int) -> Value | TensorValue | ListValue:
        if not 0 <= place < len(loaded.method.values):
            raise _cannot(self.pte, loaded.method.name, f"it has no value {place}")
        return loaded.method.values[place]

    def _dtype(self, method: str, declared: TensorValue) -> torch.dtype:
        if declared.scalar not in SCALARS:
            raise _cannot(self.pte, method, f"it has a tensor of scalar type {declared.scalar}")
        return SCALARS[declared.scalar]

    def _list(self, loaded: _Loaded, items: ListValue, values: dict[int, Any]) -> list[Any]:
        return [None if i < 0 else self._argument(loaded, i, values) for i in items.items]

    def _initial(self, method: str, declared: TensorValue) -> Tensor:
        dtype, sizes = self._dtype(method, declared), declared.sizes
        if any(size < 0 for size in sizes):
            raise _cannot(self.pte, method, f"it has a tensor of {sizes}")
        if declared.data is None:
            return torch.zeros(sizes, dtype=dtype)
        if len(declared.data) < math.prod(sizes) * dtype.itemsize:
            raise _cannot(self.pte, method, f"a constant of {sizes} is truncated")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(declared.data, dtype=dtype, count=math.prod(sizes))
        return flat.reshape(sizes) if declared.constant else flat.reshape(sizes).clone()


def _cannot(pte: PteProgram, method: str, why: str) -> UsageError:
    return UsageError(
        "cannot-interpret",
        f"cannot run the method {method!r} of {pte.name}",
        why=why,
        next="methods of Core ML delegates and torch's own kernels can be run",
    )
