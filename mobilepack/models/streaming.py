"""Run the exported decoder eagerly while its weights are read piece by piece.

Several lanes (variants of the model, sequences) walk the graph together, so that each weight is
read once and no more than a few megabytes of weights are in memory. Every lane starts at position
0 with an empty cache and keeps all positions, where the program keeps only the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.fx

from mobilepack.models.encodings import embedding_encoding, linear_encoding
from mobilepack.models.graph import arguments, fixed, operators, parameter_names, shape
from mobilepack.models.moe import ExpertLane, run_experts
from mobilepack.models.quantization import (
    fake_quantise_activations,
    fake_quantise_heads,
    quantised_rows,
)

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

STATES = "caches."
"""How the names of the decoder's states begin; every lane starts with zeros."""

_CHUNK_ELEMENTS = 1 << 21  # elements of a weight in memory at once, 8 MB in float32


class Parameters(Protocol):
    """Parameters by the decoder's names, read in float32."""

    def names(self) -> Collection[str]:
        """Return every parameter's name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive) as float32."""

    def tensor(self, name: str) -> torch.Tensor:
        """Read a whole small parameter as float32."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a lane's weights and activations are rounded.

    Attributes:
        group: Columns per scale of the int4 linear maps; 0 leaves linear maps in float32.
        embedding: `fp32`, `8w` or `4w`.
        kv_cache: `fp32`, or `fp16`: keys (unless they have a bias) and values are rounded to half
            precision, and so are the queries; `int8`: keys and values are rounded to int8 per token
            and head (`fake_quantise_heads`), queries as with `fp16`.
    """

    group: int = 0
    embedding: str = "fp32"
    kv_cache: str = "fp32"


FP32 = Quantisation()


@dataclass(frozen=True, slots=True)
class Lane:
    """One sequence through one variant of the model.

    Attributes:
        token_ids: What is fed, from position 0.
        perturbation: Standard deviation of the relative noise on the embedded tokens.
    """

    token_ids: tuple[int, ...]
    quantisation: Quantisation = FP32
    perturbation: float = 0.0


Value = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class LinearInput:
    """What a linear map is about to be fed, seen before its weight is read.

    Attributes:
        weight: Name of the weight.
        source: Name of the graph's node that makes the input; maps with one input share it.
        rows: Float32 `[tokens of the group's lanes, columns]` by group size (0: fp32 lanes); what
            8da4w lanes feed is rounded to int8 steps already.
    """

    weight: str
    source: str
    rows: Mapping[int, torch.Tensor]


def run_lanes(
    exported: ExportedProgram,
    parameters: Parameters,
    tables: Mapping[str, torch.Tensor],
    lanes: Sequence[Lane],
    on_node: Callable[[float], None] = lambda share: None,
    on_linear: Callable[[LinearInput], None] = lambda seen: None,
) -> list[torch.Tensor]:
    """Return each lane's logits, float32 `[len(token_ids), vocab]`.

    Args:
        exported: From `pipeline/export.py`.
        parameters: The weights.
        tables: From `tables.py`, as long as the longest lane at least.
        lanes: What to run.
        on_node: Told the share of the graph that is done, 0 to 1.
        on_linear: Shown the input of every linear map; what it does to the parameters counts from
            this very map on.
    """
    with torch.no_grad():
        return Walk(exported, parameters, tables, lanes, on_linear).run(on_node)


class Walk:
    """One walk of all lanes through the graph, node by node."""

    def __init__(
        self,
        exported: ExportedProgram,
        parameters: Parameters,
        tables: Mapping[str, torch.Tensor],
        lanes: Sequence[Lane],
        on_linear: Callable[[LinearInput], None] = lambda seen: None,
    ) -> None:
        """Take everything as `run_lanes` does."""
        self._on_linear = on_linear
        self._nodes = operators(exported)
        self._parameters = parameters
        self._tables = tables
        self._lanes = lanes
        self._names = parameter_names(exported)
        self._values: dict[Node, Value] = {}
        mobilepack, aten = torch.ops.mobilepack, torch.ops.aten
        self._special: dict[object, Callable[[Node], Value]] = {
            aten.embedding.default: self._embedding,
            aten.linear.default: self._linear,
            mobilepack.attention.default: self._attention,
            mobilepack.experts.default: self._experts,
            mobilepack.last_token.default: lambda node: self._values[arguments(node)[0]],
        }

    def run(self, on_node: Callable[[float], None]) -> list[torch.Tensor]:
        """Walk, and return each lane's logits."""
        nodes = self._nodes
        last_use = {argument: node for node in nodes for argument in node.all_input_nodes}
        for index, node in enumerate(nodes):
            special = self._special.get(node.target)
            self._values[node] = special(node) if special else self._plain(node)
            self.computed(node, self._values[node])
            for argument in node.all_input_nodes:
                if last_use[argument] is node:
                    self._values.pop(argument, None)
            on_node((index + 1) / len(nodes))
        return [logits[0] for logits in self._values[nodes[-1]]]

    def computed(self, node: Node, value: Value) -> None:
        """See what a node computed, one tensor per lane; a subclass that wants to overrides it."""

    def _plain(self, node: Node) -> Value:
        """Call the node's own operator, lane by lane."""
        operator = node.target
        if not callable(operator):
            raise TypeError(f"not an operator: {operator}")
        return [
            operator(
                *(self._argument(argument, index) for argument in arguments(node)), **node.kwargs
            )
            for index in range(len(self._lanes))
        ]

    def _argument(self, argument: object, lane: int) -> object:
        if not isinstance(argument, torch.fx.Node):
            return argument
        if argument in self._values:
            return self._values[argument][lane]
        name = self._names.get(argument.name)
        if name is None:  # `input_pos`: every lane starts at 0
            return torch.zeros(1, dtype=torch.long)
        if name.startswith(STATES):
            return torch.zeros([int(size) for size in shape(argument)])
        return self._tables[name] if name in self._tables else self._parameters.tensor(name)

    def _embedding(self, node: Node) -> Value:
        name = self._names[arguments(node)[0].name]
        generator = torch.Generator().manual_seed(0)
        results = []
        for lane in self._lanes:
            rows = torch.cat([self._row(name, i, lane.quantisation) for i in lane.token_ids])
            if lane.perturbation:
                noise = torch.randn(rows.shape, generator=generator)
                rows = rows * (1 + lane.perturbation * noise)
            results.append(rows.unsqueeze(0))
        return results

    def _row(self, name: str, index: int, quantisation: Quantisation) -> torch.Tensor:
        row = self._parameters.rows(name, index, index + 1)
        encoding, group = embedding_encoding(
            row.shape[1], quantisation.embedding, quantisation.group
        )
        if encoding == "fp32":
            return row
        return quantised_rows(self._parameters, name, row, index, encoding, group).dequantise()

    def _linear(self, node: Node) -> Value:
        """Multiply all lanes while the weight passes by in chunks of rows."""
        x, weight = self._values[arguments(node)[0]], self._names[arguments(node)[1].name]
        bias = (*arguments(node), None)[2]
        rows, columns = self._parameters.shape(weight)
        groups = sorted({lane.quantisation.group for lane in self._lanes})
        inputs = {group: self._stack(x, group) for group in groups}
        self._on_linear(LinearInput(weight, arguments(node)[0].name, inputs))
        outputs = {group: torch.empty(len(inputs[group]), rows) for group in groups}
        step = max(1, _CHUNK_ELEMENTS // columns)
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            chunk = self._parameters.rows(weight, start, stop)
            for group in groups:
                used = chunk
                if group:
                    coding = linear_encoding(columns, group)
                    used = quantised_rows(
                        self._parameters, weight, chunk, start, *coding
                    ).dequantise()
                outputs[group][:, start:stop] = inputs[group] @ used.T
        if bias is not None:
            offset = self._parameters.tensor(self._names[bias.name])
            for result in outputs.values():
                result += offset
        return self._split(outputs)

    def _stack(self, x: Value, group: int) -> torch.Tensor:
        parts = [
            value[0]
            for value, lane in zip(x, self._lanes, strict=True)
            if lane.quantisation.group == group
        ]
        stacked = torch.cat(parts)
        return fake_quantise_activations(stacked) if group else stacked

    def _split(self, outputs: dict[int, torch.Tensor]) -> Value:
        position = dict.fromkeys(outputs, 0)
        results = []
        for lane in self._lanes:
            group, length = lane.quantisation.group, len(lane.token_ids)
            start = position[group]
            results.append(outputs[group][start : start + length].unsqueeze(0))
            position[group] = start + length
        return results

    def _experts(self, node: Node) -> Value:
        x, chosen, *matrices, activation = arguments(node)
        lanes = [
            ExpertLane(value, picks, lane.quantisation.group)
            for value, picks, lane in zip(
                self._values[x], self._values[chosen], self._lanes, strict=True
            )
        ]
        gate, up, down = (self._names[matrix.name] for matrix in matrices)
        return run_experts(self._parameters, (gate, up, down), lanes, activation)

    def _attention(self, node: Node) -> Value:
        head_dim = fixed(arguments(node)[3], 3)
        keys_rounded = not any(name.endswith(".k.bias") for name in self._names.values())
        results = []
        for index, lane in enumerate(self._lanes):
            q, k, v = (self._values[argument][index] for argument in arguments(node)[:3])
            kept = lane.quantisation.kv_cache
            if kept != "fp32" and keys_rounded:
                q = q.half().float()
            if kept == "fp16":
                v, k = v.half().float(), k.half().float() if keys_rounded else k
            elif kept == "int8":
                v, k = (fake_quantise_heads(x, head_dim) for x in (v, k))
            caches = (self._cache(cache, lane) for cache in arguments(node)[3:5])
            rest = (self._argument(argument, index) for argument in arguments(node)[5:])
            results.append(torch.ops.mobilepack.attention(q, k, v, *caches, *rest))
        return results

    def _cache(self, node: Node, lane: Lane) -> torch.Tensor:
        """Return an empty cache, as long as a lane."""
        return torch.zeros(1, len(lane.token_ids), fixed(node, 2), fixed(node, 3))
