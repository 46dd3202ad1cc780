"""A method as a flat list of steps over named tensors: what we trace, run, quantise and compile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "add", "cat", "clamp", "convert", "dequantize", "embedding", "gather", "gelu", "layer_norm",
    "linear", "matmul", "mul", "permute", "quantize", "relu", "reshape", "rms_norm", "sigmoid",
    "slice", "softmax", "sub", "tanh",
]  # fmt: skip

MOVES = frozenset({"reshape", "permute", "slice", "cat", "gather", "embedding"})
"""Steps whose results are numbers of their inputs: they keep the encoding, nothing is rounded."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor by its name, which is the same in methods of every length.

    Attributes:
        name: Unique in a graph.
        dtype: `float32` or `int32`; how floats are quantised is not the graph's matter.
        role: A constant is a parameter or a table (by its name in the decoder), or a number;
            `outside` is a float that the caller sees of integers (`boundary.py`).
        number: Value of a constant that is no tensor of the decoder.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int32"]
    role: Literal["input", "constant", "inner", "outside"]
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: `output = kind(*inputs, **attributes)`."""

    kind: Kind
    inputs: tuple[Tensor, ...]
    output: Tensor
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """A method: steps in an order in which they can run."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]

    def constants(self) -> tuple[Tensor, ...]:
        """Return every constant once, in the order of first use."""
        found = {t.name: t for step in self.steps for t in step.inputs if t.role == "constant"}
        return tuple(found.values())

    def matrices(self) -> frozenset[str]:
        """Return the names of the constants that linear maps multiply by."""
        return frozenset(step.inputs[1].name for step in self.steps if step.kind == "linear")

    def last_uses(self) -> dict[str, int]:
        """Return for every tensor the index of the last step that reads it."""
        return {t.name: index for index, step in enumerate(self.steps) for t in step.inputs}


def with_caches_rounded(graph: Graph) -> Graph:
    """Return a graph that converts new keys and values before they join their cache.

    A cache has 8 bits and its own encoding; what is new is converted where it is made, so that
    output, cache and operand are the same integers. All outputs but the first are such.
    """
    news = {output.name for output in graph.outputs[1:]}
    sources = {
        step.inputs[0].name: step.output.name for step in graph.steps if step.output.name in news
    }
    rounded: dict[str, Tensor] = {}
    steps: list[Step] = []
    for step in graph.steps:
        inputs = step.inputs
        if step.output.name in news:  # it is turned to the cache's layout
            inputs = (rounded[inputs[0].name],)
        steps.append(Step(step.kind, inputs, step.output, step.attributes))
        if step.output.name in sources:
            source = step.output
            name = f"{sources[source.name]}_8"
            rounded[source.name] = Tensor(name, source.shape, source.dtype, "inner")
            steps.append(Step("convert", (source,), rounded[source.name]))
    return Graph(graph.inputs, graph.outputs, tuple(steps))
