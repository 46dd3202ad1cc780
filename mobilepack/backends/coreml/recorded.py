"""Which value of a package each step of the decoder is: its functions written again, weightless."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from mobilepack.backends.coreml.decoder import DecoderWriter
from mobilepack.backends.coreml.package import Wanted, functions_in_order
from mobilepack.backends.coreml.steps import Call, Steps
from mobilepack.backends.coreml.storage import Rows, Source, Storage
from mobilepack.backends.coreml.values import Graph, Value, half
from mobilepack.mil.weight_writer import WeightWriter
from mobilepack.mil.writer import Blob, FunctionWriter
from mobilepack.models.layer_spec import Activation
from mobilepack.models.spec import DecoderSpec

EMBEDDING, LINEAR = "embedding", "linear"
_ATEN: dict[Activation, str] = {"gelu_tanh": "gelu"}


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step of the decoder.

    Attributes:
        name: As `operator_name` calls it; a linear map's has its parameter too.
        value: What the function calls the result.
        pairs: Of rotations whose pairs are neighbours: pairs per head, which come out as all
            first halves, then all second ones.
        heads: With `pairs`: of the result.
    """

    name: str
    value: str
    pairs: int = 0
    heads: int = 0


def record_steps(
    spec: DecoderSpec, source: Source, wanted: Wanted
) -> dict[str, tuple[RecordedStep, ...]]:
    """Return the steps of each method in order.

    Args:
        spec: The model.
        source: Its weights; only vectors are read.
        wanted: As the package was written.
    """
    storage = _Weightless(cast(WeightWriter, None), source, wanted.opset)
    recorder = _Recorder(spec, storage, wanted.form, wanted.linear, wanted.group)
    found: dict[str, list[RecordedStep]] = {}
    for function in functions_in_order(spec, source, wanted):
        recorder.write(function.name, wanted.opset, function.part, function.tokens)
        made = recorder.recording.graph.steps
        for method in function.methods:
            found.setdefault(method, []).extend(made)
    return {method: tuple(steps) for method, steps in found.items()}


@dataclass(slots=True)
class _Weightless(Storage):
    """Constants without numbers, named as those of a package."""

    def matrix(self, graph: Graph, rows: Rows, trailing: int) -> Value:
        """See `Storage.matrix`."""
        columns = self.source.shape(rows.parameter)[1]
        sizes = (rows.count, columns, *(1,) * trailing)
        return graph.constant(rows.label, self._blob((rows, sizes), sizes))

    def vector(
        self, graph: Graph, name: str, values: torch.Tensor, sizes: tuple[int, ...]
    ) -> Value:
        """See `Storage.vector`."""
        return graph.constant(name.replace(".", "_"), self._blob((name, sizes), sizes))

    def _blob(self, key: tuple[object, ...], sizes: tuple[int, ...]) -> Blob:
        """Return a place of its own for each constant: equal constants are one."""
        known = self._blobs.setdefault(key, {"data": Blob(half(*sizes), len(self._blobs))})
        return known["data"]


class _Graph(Graph):
    """Notes sums and products that belong to no larger step."""

    def __init__(self, function: FunctionWriter) -> None:
        super().__init__(function)
        self.steps: list[RecordedStep] = []
        self.depth = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Note nothing inside."""
        self.depth += 1
        yield
        self.depth -= 1

    def note(self, name: str, value: Value, pairs: int = 0, heads: int = 0) -> None:
        """Note a step, unless it belongs to a larger one."""
        if not self.depth:
            self.steps.append(RecordedStep(name, value.name, pairs, heads))

    def binary(self, kind: str, x: Value, y: Value | float) -> Value:
        """See `Graph.binary`."""
        made = super().binary(kind, x, y)
        self.note(kind, made)
        return made


@dataclass(slots=True)
class _Steps(Steps):
    """Notes each step's result."""

    graph: _Graph = field()

    def _noted(self, name: str, make: Callable[..., Value], *given: Any) -> Value:
        with self.graph.step():
            made = make(self, *given)
        self.graph.note(name, made)
        return made

    def rms_norm(self, *given: Any) -> Value:
        """See `Steps.rms_norm`."""
        return self._noted("rms_norm", Steps.rms_norm, *given)

    def layer_norm(self, *given: Any) -> Value:
        """See `Steps.layer_norm`."""
        return self._noted("layer_norm", Steps.layer_norm, *given)

    def head_norm(self, *given: Any) -> Value:
        """See `Steps.head_norm`."""
        return self._noted("head_norm", Steps.head_norm, *given)

    def attention(self, *given: Any) -> Value:
        """See `Steps.attention`."""
        return self._noted("attention", Steps.attention, *given)

    def positions(self, *given: Any) -> Value:
        """See `Steps.positions`."""
        return self._noted("positions", Steps.positions, *given)

    def activation(self, x: Value, kind: Activation) -> Value:
        """See `Steps.activation`; those of several operators are several nodes of the graph."""
        return self._noted(_ATEN.get(kind, kind), Steps.activation, x, kind)

    def last_token(self, x: Value) -> Value:
        """See `Steps.last_token`; of one token it is nothing."""
        made = Steps.last_token(self, x)
        if made.name != x.name:
            self.graph.note("last_token", made)
        return made

    def rope(
        self,
        x: Value,
        cos: torch.Tensor,
        sin: torch.Tensor,
        position: Call,
        heads: int,
        interleaved: bool,
    ) -> Value:
        """See `Steps.rope`."""
        with self.graph.step():
            made = Steps.rope(self, x, cos, sin, position, heads, interleaved)
        self.graph.note("rope", made, cos.shape[1] if interleaved else 0, heads)
        return made


class _Recorder(DecoderWriter):
    """Writes functions and notes their steps."""

    kinds = (_Graph, _Steps)

    @property
    def recording(self) -> _Steps:
        """The steps of the function that was written last."""
        return cast(_Steps, self._steps)

    def mapped(self, x: Value, name: str, biased: bool) -> Value:
        """See `DecoderWriter.mapped`."""
        graph = self.recording.graph
        with graph.step():
            made = super().mapped(x, name, biased)
        graph.note(f"{LINEAR} {name}.weight", made)
        return made

    def _embedded(self, graph: Graph, tokens: Value) -> Value:
        own = self.recording.graph
        with own.step():
            made = super()._embedded(graph, tokens)
        own.note(EMBEDDING, made)
        return made

    def _logits(self, graph: Graph, x: Value) -> Value:
        made = super()._logits(graph, x)
        if self.spec.logit_softcap is None:
            self.recording.graph.note(f"{LINEAR} head.weight", made)
        return made

    def _call(self, graph: Graph, *given: Any) -> Call:
        with self.recording.graph.step():
            return super()._call(graph, *given)
