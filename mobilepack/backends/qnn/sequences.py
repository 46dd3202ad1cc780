"""Whole texts through the static form at once: for calibration and for the reference.

A text of T tokens is one call without a cache: each token sees what it would have seen as a decode
step over a filled cache, and every weight is read once for all texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mobilepack.backends.qnn.constants import Constants
from mobilepack.backends.qnn.encodings import Groups, Range, Ranges
from mobilepack.backends.qnn.evaluate import Case, evaluate
from mobilepack.backends.qnn.graph import MOVES, Graph, Step, with_caches_rounded
from mobilepack.backends.qnn.trace import Watcher, trace
from mobilepack.models.operators_static import Heads
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.static import (
    StaticDecoder,
    StaticShape,
    cache_names,
    input_names,
    windows_of,
)

OnShare = Callable[[float], None]
UNIT_RANGES: dict[str, Range] = {"sigmoid": (0.0, 65535 / 65536), "softmax": (0.0, 1.0)}
"""Of functions whose values are known (QNN wants the first so: a scale of 2^-16)."""


@dataclass(frozen=True, slots=True)
class Tracer:
    """Makes the graphs of a model.

    Attributes:
        quantised: Whether caches have an encoding of their own.
    """

    spec: DecoderSpec
    max_seq_len: int
    heads: Heads
    quantised: bool

    def graph(
        self, tokens: int, past: int, *, every: bool = False, watcher: Watcher | None = None
    ) -> Graph:
        """Return the graph of calls of one length; see `trace`."""
        shape = StaticShape(
            tokens, self.max_seq_len, past, linear="linear", heads=self.heads, every=every
        )
        with torch.device("meta"):
            decoder = StaticDecoder(self.spec, shape).eval()
        caches = cache_names(self.spec)
        graph = trace(decoder, input_names(self.spec), ("logits", *caches), watcher)
        return with_caches_rounded(graph) if self.quantised else graph

    def text(self, ids: Sequence[int], mask_value: float) -> Case:
        """Return a text as one call without a cache that gives every token's logits."""
        count = len(ids)
        graph = self.graph(count, 0, every=True)
        rows, columns = torch.arange(count)[:, None], torch.arange(count)[None]
        inputs = {
            "tokens": torch.tensor([ids], dtype=torch.int32),
            "positions": torch.arange(count, dtype=torch.int32)[None],
        }
        masks = [t for t in graph.inputs if t.name.startswith("mask")]
        for tensor, window in zip(masks, windows_of(self.spec), strict=True):
            seen = columns <= rows
            seen = seen & (columns > rows - window) if window else seen
            inputs[tensor.name] = torch.where(seen, 0.0, mask_value)[None, None]
        return Case(graph, inputs)


def calibrated(
    methods: Sequence[Graph],
    tracer: Tracer,
    constants: Constants,
    rows: Sequence[Sequence[int]],
    mask_value: float,
    on_share: OnShare,
) -> tuple[Groups, dict[str, Range]]:
    """Return which tensors share an encoding, and the range of each group over texts.

    Args:
        methods: Graphs that will be compiled.
    """
    cases = [tracer.text(row, mask_value) for row in rows]
    prefill = methods[0]
    groups = Groups([*methods, *(case.graph for case in cases)])
    known = constants.ranges(prefill)
    known += [(t.name, (mask_value, 0.0)) for t in prefill.inputs if t.name.startswith("mask")]
    known += [(s.output.name, UNIT_RANGES[s.kind]) for s in prefill.steps if s.kind in UNIT_RANGES]
    ranges = Ranges(groups, known)

    def look(step: Step, value: torch.Tensor, _: int) -> torch.Tensor:
        if step.kind not in MOVES and step.kind not in UNIT_RANGES:
            ranges.see(step.output, value)
        return value

    evaluate(cases, constants.operands, look, on_share)
    return groups, ranges.found
