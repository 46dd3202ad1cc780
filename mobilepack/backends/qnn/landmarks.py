"""Which tensor of a trace is the result of which of the decoder's large steps.

Both forms of the decoder run the same blocks: what the dynamic form's exported graph holds as one
node is here a call of `Operators`, or a single step between two such calls, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mobilepack.backends.qnn.graph import Graph
from mobilepack.backends.qnn.trace import Recorder
from mobilepack.models.static import StaticDecoder


@dataclass(slots=True)
class Landmarks:
    """Looks on as a decoder is traced; see `trace.Watcher`."""

    _calls: list[tuple[int, int, str, str]] = field(default_factory=list)
    _inside: bool = False

    def attach(self, decoder: StaticDecoder, recorder: Recorder) -> None:
        """Watch every large step."""
        for module in decoder.modules():
            if hasattr(module, "ops"):
                setattr(module, "ops", _Watched(module.ops, self, recorder))  # noqa: B010  any attribute

    def watch(self, name: str, recorder: Recorder, call: Callable[[], Any]) -> Any:
        """Make a call and write down which steps it took."""
        if self._inside:
            return call()
        start, self._inside = recorder.count, True
        try:
            result = call()
        finally:
            self._inside = False
        self._calls.append((start, recorder.count, name, recorder.tensor(result).name))
        return result

    def found(self, graph: Graph) -> list[tuple[str, str]]:
        """Return the kind and the result's name of every large step, in order.

        Args:
            graph: As it was traced; steps that were added later are told by their names.
        """
        made = [step for step in graph.steps if step.kind != "convert"]
        large = {index for start, end, *_ in self._calls for index in range(start, end)}
        marks = [
            (index, str(step.kind), step.output.name)
            for index, step in enumerate(made)
            if index not in large
        ]
        marks += [(end - 1, kind, name) for _, end, kind, name in self._calls]
        return [(kind, name) for _, kind, name in sorted(marks, key=lambda mark: mark[0])]


class _Watched:
    def __init__(self, ops: Any, landmarks: Landmarks, recorder: Recorder) -> None:
        self._ops, self._landmarks, self._recorder = ops, landmarks, recorder

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._ops, name)

        def call(*args: Any, **keywords: Any) -> Any:
            return self._landmarks.watch(name, self._recorder, lambda: step(*args, **keywords))

        return call
