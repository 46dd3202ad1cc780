"""Run a function of a MIL program on torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mobilepack.errors import UsageError, near_misses
from mobilepack.mil.bind import Rounding, finisher
from mobilepack.mil.execute import Observer, Run, execute, fits
from mobilepack.mil.plan import Plan, plan_function
from mobilepack.mil.program import Function, NamedType, Program
from mobilepack.mil.tensors import CARRIERS, ROUNDED
from mobilepack.mil.types import TensorType
from mobilepack.mil.weights import DEFAULT_BUDGET_BYTES, WeightStore

Values = Mapping[str, Tensor | np.ndarray]
State = dict[str, Tensor]


@dataclass(slots=True)
class Interpreter:
    """The functions of one program, planned when they are first called; weights exist once.

    Values are carried in fp32 where the program declares fp16 (and bf16): with `rounding`
    "declared" each is rounded to its declared type when its operator has computed it, with "none"
    it is not, which tells rounding from faults of conversion. Inside an operator sums are fp32:
    how an accelerator accumulates is not modelled.

    Attributes:
        budget_bytes: Private memory for weights; beyond it they are made again for each use.
    """

    program: Program
    rounding: Rounding = "declared"
    budget_bytes: int = DEFAULT_BUDGET_BYTES
    _store: WeightStore = field(init=False)
    _plans: dict[str, Plan] = field(default_factory=dict)
    _states: dict[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._store = WeightStore(self.budget_bytes)

    @property
    def weight_memory_bytes(self) -> int:
        """Return the private memory that weights take now."""
        return self._store.used_bytes

    def function(self, name: str | None = None) -> Function:
        """Return a function, the default one for None.

        Raises:
            UsageError: There is no such function.
        """
        chosen = name or self.program.default
        if chosen not in self.program.functions:
            raise UsageError(
                "unknown-function",
                f"cannot run the function {chosen!r} of {self.program.name}",
                why=f"its functions are {', '.join(self.program.functions)}",
                next=near_misses(chosen, list(self.program.functions)),
            )
        return self.program.functions[chosen]

    def new_state(self, function: str | None = None) -> State:
        """Return a function's states, all zero, as Core ML makes them."""
        states = self.function(function).states
        return {
            name: torch.zeros(kind.sizes, dtype=CARRIERS[kind.dtype])
            for name, kind in states.items()
        }

    def reset(self) -> None:
        """Forget the states that `run` kept."""
        self._states.clear()

    def run(
        self,
        inputs: Values,
        function: str | None = None,
        *,
        state: State | None = None,
        observe: Observer | None = None,
    ) -> dict[str, Tensor]:
        """Run a function and return its outputs, fp16 ones as float32 tensors.

        Args:
            inputs: A tensor or array for every input, by name.
            state: States to read and to change; without, each function keeps its own from call
                to call. Functions that share a cache are given the same dictionary.
            observe: Called with (operation, name of the value, value) for every value computed;
                shapes are then held against the declared ones.

        Raises:
            UsageError: An input is missing, unknown, or of another shape or kind; the function
                uses an operator that is not known, or one whose arguments do not fit.
        """
        chosen = self.function(function)
        plan = self._plan(chosen)
        given = _arguments(chosen, inputs, self.rounding)
        frame: list[object] = [None] * plan.places
        for place, value in zip(plan.block.inputs, given, strict=True):
            frame[place] = value
        run = Run(frame, self._state(chosen, state), observe)
        with torch.inference_mode():
            execute(plan.block, run)
            results = plan.block.results(run)
        return dict(zip(chosen.block.outputs, results, strict=True))

    def _state(self, function: Function, state: State | None) -> State:
        if state is None:
            if function.name not in self._states:
                self._states[function.name] = self.new_state(function.name)
            return self._states[function.name]
        for name, kind in function.states.items():
            if name not in state or not fits(state[name], kind):
                have = list(state[name].shape) if name in state else "nothing"
                raise UsageError(
                    "invalid-state",
                    f"cannot run {function.name!r} with this state",
                    why=f"it needs {name!r} as {kind}, given is {have}",
                    next="make one with Interpreter.new_state",
                )
        return state

    def _plan(self, function: Function) -> Plan:
        if function.name not in self._plans:
            # Nothing of autograd is recorded in what a plan holds.
            with torch.inference_mode():
                self._plans[function.name] = plan_function(
                    function, self.program.name, self._store, self.rounding
                )
            self._store.plan()
        return self._plans[function.name]


def _arguments(function: Function, inputs: Values, rounding: Rounding) -> list[Tensor]:
    """Return the inputs in order, in their declared types."""
    names = [item.name for item in function.tensors]
    unknown = [name for name in inputs if name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        why = [f"{name!r} is not one of its inputs" for name in unknown]
        why += [f"{name!r} is missing" for name in missing]
        raise UsageError(
            "wrong-inputs",
            f"cannot run {function.name!r} with these inputs",
            why="; ".join(why),
            next="give " + ", ".join(f"{i.name}: {i.type}" for i in function.tensors),
        )
    return [_argument(item, inputs[item.name], rounding) for item in function.tensors]


def _argument(item: NamedType, value: Tensor | np.ndarray, rounding: Rounding) -> Tensor:
    kind = item.type
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor) and not value.shape:
        tensor = tensor.reshape(())
    if not isinstance(kind, TensorType):
        raise _wrong(item, f"the program wants {kind}, which is no tensor")
    if kind.shape is not None and not fits(tensor, kind):
        raise _wrong(item, f"its shape is {list(tensor.shape)}, the program wants {kind}")
    whole = not kind.dtype.is_float
    if whole and tensor.is_floating_point():
        raise _wrong(item, f"it holds {tensor.dtype}, the program wants {kind}")
    if kind.dtype in ROUNDED and not tensor.is_floating_point():
        tensor = tensor.float()
    result: Tensor = finisher(kind, moves=False, rounding=rounding)(tensor)
    return result


def _wrong(item: NamedType, why: str) -> UsageError:
    return UsageError(
        "wrong-inputs",
        f"cannot take the input {item.name!r}",
        why=why,
        next="see the inputs with `mobilepack mil show`",
    )
