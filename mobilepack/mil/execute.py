"""Steps in order, and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mobilepack.errors import UsageError
from mobilepack.mil.bind import Call
from mobilepack.mil.program import Operation
from mobilepack.mil.tensors import FAULTS, unreadable
from mobilepack.mil.types import TensorType

Observer = Callable[[Operation, str, Tensor], None]


@dataclass(slots=True)
class Run:
    """What one call works on."""

    frame: list[Any]
    states: dict[str, Tensor]
    observe: Observer | None


@dataclass(frozen=True, slots=True)
class Step:
    """One operator call.

    Attributes:
        structural: Whether `call` takes the run itself (states, nested blocks) instead of values.
        free: Places whose values nothing needs afterwards.
    """

    call: Call
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    free: tuple[int, ...]
    structural: bool
    operation: Operation


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """Steps, the places of the block's arguments, and its results (a place or a constant)."""

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int | Tensor, ...]

    def results(self, run: Run) -> tuple[Any, ...]:
        """Return the block's results after its steps have run."""
        return tuple(run.frame[o] if isinstance(o, int) else o for o in self.outputs)


def execute(block: PlannedBlock, run: Run) -> None:
    """Run a block's steps.

    Raises:
        UsageError: A step's arguments do not fit it.
    """
    frame, observe = run.frame, run.observe
    step = None
    try:
        for step in block.steps:
            if step.structural:
                result = step.call(run)
            else:
                result = step.call(*[frame[i] for i in step.inputs])
            outputs = step.outputs
            if len(outputs) == 1:
                frame[outputs[0]] = result
            else:
                for place, value in zip(outputs, result, strict=True):
                    frame[place] = value
            if observe is not None:
                _show(step, frame, observe)
            for place in step.free:
                frame[place] = None
    except FAULTS as err:
        raise _failed(step, run, err) from err


def _show(step: Step, frame: list[Any], observe: Observer) -> None:
    for place, output in zip(step.outputs, step.operation.outputs, strict=True):
        value = frame[place]
        kind = output.type
        if isinstance(kind, TensorType) and kind.shape is not None and not fits(value, kind):
            raise unreadable(
                step.operation, f"{output.name!r} is {list(value.shape)}, declared is {kind}"
            )
        observe(step.operation, output.name, value)


def fits(value: Tensor, kind: TensorType) -> bool:
    """Say whether a value has the declared sizes, where those are known."""
    shape = kind.shape or ()
    return len(shape) == value.dim() and all(
        want is None or want == have for want, have in zip(shape, value.shape, strict=True)
    )


def _failed(step: Step | None, run: Run, err: Exception) -> UsageError:
    if step is None:
        return UsageError("invalid-operation", "cannot run a block", why=str(err), next="report it")
    shapes = [list(value.shape) for i in step.inputs if isinstance(value := run.frame[i], Tensor)]
    return unreadable(step.operation, f"{str(err).splitlines()[0]} (its arguments are {shapes})")
