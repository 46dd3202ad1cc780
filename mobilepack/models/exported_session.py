"""The exported graph as a step: called like the lowered program, run by torch node by node.

`streaming.py` computes all positions of a sequence at once from an empty cache; this feeds chunk
after chunk and keeps the states between calls, as the program does. What the two disagree on is
the export's fault, or the state's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mobilepack.models.encodings import linear_encoding
from mobilepack.models.graph import arguments, parameter_names, shape
from mobilepack.models.quantization import fake_quantise_activations, quantised_rows
from mobilepack.models.streaming import FP32, STATES, Lane, Parameters, Quantisation, Value, Walk

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

OnValue = Callable[["Node", torch.Tensor], None]
"""Shown every node's value `[1, seq, ...]` of a call, in order."""


class ExportedSession:
    """One sequence through the exported decoder; every weight is in memory in float32."""

    def __init__(
        self,
        exported: ExportedProgram,
        parameters: Parameters,
        tables: Mapping[str, torch.Tensor],
        quantisation: Quantisation = FP32,
    ) -> None:
        """Make empty states; weights are read when they are first used.

        Args:
            exported: From `pipeline/export.py`.
            parameters: The weights.
            tables: From `tables.py`, as long as the cache.
            quantisation: How weights and activations are rounded.
        """
        self.exported, self.parameters, self.tables = exported, parameters, tables
        self.quantisation = quantisation
        self.weights: dict[str, torch.Tensor] = {}
        names = parameter_names(exported)
        self.states = {
            names[node.name]: torch.zeros([int(size) for size in shape(node)])
            for node in exported.graph.nodes
            if names.get(node.name, "").startswith(STATES)
        }

    def __call__(
        self, tokens: npt.NDArray[np.int64], position: int, on_value: OnValue | None = None
    ) -> npt.NDArray[np.float32]:
        """Feed tokens [S] from a position on; return the last one's logits [V]."""
        with torch.no_grad():
            (logits,) = ExportedCall(self, tuple(tokens.tolist()), position, on_value).run(
                lambda share: None
            )
        result: npt.NDArray[np.float32] = logits.numpy()
        return result

    def weight(self, name: str) -> torch.Tensor:
        """Return a linear map's weight as the recipe rounds it."""
        if name not in self.weights:
            whole = self.parameters.tensor(name)
            group = self.quantisation.group
            if group:
                coding = linear_encoding(whole.shape[1], group)
                whole = quantised_rows(self.parameters, name, whole, 0, *coding).dequantise()
            self.weights[name] = whole
        return self.weights[name]


class ExportedCall(Walk):
    """One call of one lane, with states that stay."""

    def __init__(
        self,
        session: ExportedSession,
        token_ids: tuple[int, ...],
        position: int,
        on_value: OnValue | None,
    ) -> None:
        lanes = [Lane(token_ids, session.quantisation)]
        super().__init__(session.exported, session.parameters, session.tables, lanes)
        self._session, self._position, self._on_value = session, position, on_value
        self._special[torch.ops.mobilepack.last_token.default] = self._plain

    def computed(self, node: Node, value: Value) -> None:
        if self._on_value is not None:
            self._on_value(node, value[0])

    def give(self, node: Node, value: torch.Tensor) -> None:
        """Let a node have a value, whoever computed it."""
        self._values[node] = [value]

    def compute(self, node: Node) -> torch.Tensor:
        """Return what a node makes of the values of its inputs; states move on."""
        special = self._special.get(node.target)
        with torch.no_grad():
            (value,) = special(node) if special else self._plain(node)
        return value

    def _argument(self, argument: object, lane: int) -> object:
        if isinstance(argument, torch.fx.Node) and argument not in self._values:
            name = self._names.get(argument.name)
            if name is None:
                return torch.tensor([self._position])
            if name.startswith(STATES):
                return self._session.states[name]
        return super()._argument(argument, lane)

    def _cache(self, node: Node, lane: Lane) -> torch.Tensor:
        return self._session.states[self._names[node.name]]

    def _linear(self, node: Node) -> Value:
        (x,) = self._values[arguments(node)[0]]
        weight, bias = self._names[arguments(node)[1].name], (*arguments(node), None)[2]
        if self._session.quantisation.group:
            x = fake_quantise_activations(x)
        mapped = x @ self._session.weight(weight).T
        if bias is not None:
            mapped = mapped + self._parameters.tensor(self._names[bias.name])
        return [mapped]
