"""Intermediate values of eager PyTorch, of chosen nodes only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from mobilepack.models.streaming import Lane, Parameters, Value, Walk

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


def observed(
    exported: ExportedProgram,
    parameters: Parameters,
    tables: Mapping[str, torch.Tensor],
    lanes: Sequence[Lane],
    wanted: Collection[Node],
) -> dict[Node, list[torch.Tensor]]:
    """Return each wanted node's value `[1, len(token_ids), channels]`, one per lane."""
    walk = _Observer(exported, parameters, tables, lanes, wanted)
    with torch.no_grad():
        walk.run(lambda share: None)
    return walk.seen


class _Observer(Walk):
    def __init__(
        self,
        exported: ExportedProgram,
        parameters: Parameters,
        tables: Mapping[str, torch.Tensor],
        lanes: Sequence[Lane],
        wanted: Collection[Node],
    ) -> None:
        super().__init__(exported, parameters, tables, lanes)
        self._wanted = set(wanted)
        self.seen: dict[Node, list[torch.Tensor]] = {}

    def computed(self, node: Node, value: Value) -> None:
        if node in self._wanted:
            self.seen[node] = list(value)
