"""Mixtures of experts in the walk: which experts a token goes through, with which weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch

from mobilepack.backends.xnnpack.expert_runs import (
    ExpertCall,
    ExpertRuns,
    ExpertWeights,
    expert_graph,
)
from mobilepack.backends.xnnpack.lowered import PlayedStep
from mobilepack.backends.xnnpack.program import ProgramBuilder
from mobilepack.backends.xnnpack.segments import SegmentBuilder
from mobilepack.models.graph import arguments, fixed, shape
from mobilepack.models.ops_moe import SPARSEMIXER_BAND

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.models.layer_spec import Activation

_OURS = torch.ops.mobilepack
_CHOOSE = _OURS.top_experts.default
_WEIGH = _OURS.expert_weights.default
_RUN = _OURS.experts.default
MIXTURE = frozenset({_CHOOSE, _WEIGH, _RUN})


class Mixtures:
    """Turns the nodes of mixtures of experts into steps."""

    def __init__(
        self,
        program: ProgramBuilder,
        builder: SegmentBuilder,
        tensors: dict[Node, int],
        length: int,
    ) -> None:
        """Prepare.

        Args:
            program: Under construction.
            builder: Knows parameters and how they are stored.
            tensors: The program's tensor of each node that lies outside the segments.
            length: The int that holds the call's number of tokens.
        """
        self._program = program
        self._builder = builder
        self._tensors = tensors
        self._runs = ExpertRuns(program, length)
        self.operators = 0
        self.workspace_bytes = 0

    def step(self, node: Node) -> PlayedStep:
        """Return the step of a node of `MIXTURE`, with its tensors and delegates."""
        makers: dict[object, Callable[[Node], Callable[[bool], None]]] = {
            _CHOOSE: self._choose,
            _WEIGH: self._weigh,
            _RUN: self._run,
        }
        return PlayedStep(makers[node.target](node))

    def _scratch(self, like: Node, last: int, element: str = "float32") -> int:
        """Return a tensor with a node's axes but another last one."""
        bound = (*self._bounds(like)[:-1], last)
        return self._program.tensor(bound, element, dynamic=self._is_dynamic(like))

    def _bounds(self, node: Node) -> tuple[int, ...]:
        return tuple(
            size if isinstance(size, int) else self._builder.sequence for size in shape(node)
        )

    @staticmethod
    def _is_dynamic(node: Node) -> bool:
        return any(not isinstance(size, int) for size in shape(node))

    def _choose(self, node: Node) -> Callable[[bool], None]:
        logits, count = arguments(node)
        p, source = self._program, self._tensors[logits]
        outs = (self._scratch(node, count), self._scratch(node, count, "int64"))
        self._tensors[node] = outs[1]

        def play(_: bool) -> None:
            options = (p.integer(count), p.integer(-1), p.boolean(True), p.boolean(True))
            p.kernel("aten::topk", "values", source, *options, *outs, p.tensors(outs))

        return play

    def _weigh(self, node: Node) -> Callable[[bool], None]:
        logits, chosen, kind, jitter = arguments(node)
        source, picks = self._tensors[logits], self._tensors[chosen]
        out = self._scratch(node, fixed(node, -1))
        self._tensors[node] = out
        if kind == "sparsemixer":
            return self._sparsemixer(node, SPARSEMIXER_BAND * float(jitter))
        among = kind == "softmax_chosen"
        scratch = self._scratch(node, fixed(chosen if among else logits, -1))

        def play(_: bool) -> None:
            if among:
                self._gather(source, picks, scratch)
                self._softmax(scratch, out)
            else:
                self._softmax(source, scratch)
                self._gather(scratch, picks, out)

        return play

    def _sparsemixer(self, node: Node, band: float) -> Callable[[bool], None]:
        """Write `ops_moe._sparsemixer`, kernel by kernel."""
        logits, chosen = arguments(node)[:2]
        p, count, experts = self._program, fixed(chosen, -1), fixed(logits, -1)
        source, picks, out = (self._tensors[n] for n in (logits, chosen, node))
        index = self._scratch(node, 1, "int64")
        largest = self._scratch(node, 1)
        rest, scale, inside = (self._scratch(node, experts) for _ in range(3))
        outside = self._scratch(node, experts, "bool")
        parts = [self._scratch(node, 1) for _ in range(count)]

        def play(_: bool) -> None:
            minus_infinity, last, one = p.double(float("-inf")), p.integer(-1), p.integer(1)
            remaining = source
            for slot in range(count):
                cut = (last, p.integer(slot), p.integer(slot + 1), one)
                p.kernel("aten::slice_copy", "Tensor_out", picks, *cut, index, index)
                self._gather(remaining, index, largest)
                p.kernel("aten::abs", "out", source, scale, scale)
                p.kernel("aten::maximum", "out", scale, largest, scale, scale)
                p.kernel("aten::sub", "out", largest, source, one, inside, inside)
                p.kernel("aten::div", "out", inside, scale, inside, inside)
                p.kernel("aten::gt", "Scalar_out", inside, p.double(band), outside, outside)
                masked = (remaining, outside, minus_infinity, inside, inside)
                p.kernel("aten::masked_fill", "Scalar_out", *masked)
                self._softmax(inside, scale)
                self._gather(scale, index, parts[slot])
                gone = (remaining, last, index, minus_infinity, rest, rest)
                p.kernel("aten::scatter", "value_out", *gone)
                remaining = rest
            p.kernel("aten::cat", "out", p.tensors(parts), last, out, out)

        return play

    def _softmax(self, x: int, out: int) -> None:
        p = self._program
        p.kernel("aten::_softmax", "out", x, p.integer(-1), p.boolean(False), out, out)

    def _gather(self, x: int, index: int, out: int) -> None:
        p = self._program
        p.kernel("aten::gather", "out", x, p.integer(-1), index, p.boolean(False), out, out)

    def _run(self, node: Node) -> Callable[[bool], None]:
        x, chosen, *matrices, activation = arguments(node)
        tokens = self._builder.sequence if self._is_dynamic(node) else 1
        count, hidden = fixed(node, -2), fixed(node, -1)
        gate, up, down = (self._builder.parameter(matrix) for matrix in matrices)
        size = fixed(matrices[2], 1)
        weights = ExpertWeights(
            gate,
            up,
            down,
            cast("Activation", activation),
            experts=fixed(matrices[0], 0) // size,
            size=size,
            hidden=hidden,
        )
        rows = self._program.tensor([1, tokens * count, 1, hidden], dynamic=False)
        out = self._program.view(rows, self._bounds(node), dynamic=self._is_dynamic(node))
        self._tensors[node] = out
        call = ExpertCall(
            x=self._tensors[x],
            chosen=self._tensors[chosen],
            out=out,
            rows=rows,
            delegates=self._delegates(weights, tokens),
            count=count,
            tokens=tokens,
            hidden=hidden,
        )

        def play(many_tokens: bool) -> None:
            several = many_tokens and tokens > 1
            (self._runs.many_tokens if several else self._runs.one_token)(call)

        return play

    def _delegates(self, weights: ExpertWeights, tokens: int) -> tuple[int, ...]:
        made = []
        for expert in range(weights.experts):
            graph = expert_graph(self._builder.storage, weights, expert, tokens)
            self.operators += len(graph)
            self.workspace_bytes = max(self.workspace_bytes, graph.workspace_bytes())
            made.append(self._program.add_delegate(graph))
        return tuple(made)
