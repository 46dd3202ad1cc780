"""Scale the channels between two steps of a network so that what it computes stays the same.

A linear map's input channels can be multiplied by any positive numbers if whatever makes them is
divided by the same: the weights of a norm, the rows of the map that a gate multiplies, or the rows
of the values that attention mixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mobilepack.models.graph import arguments, operators, parameter_names
from mobilepack.models.source import Source, View

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


@dataclass(frozen=True, slots=True)
class Joint:
    """Linear maps with one input, and what makes it.

    Attributes:
        readers: Weights whose columns read the channels.
        makers: Parameters whose rows (or numbers) make them.
        head_dim: For attention's values: channels of a head; 0 elsewhere.
        repeats: Query heads that read one head of the values; 1 elsewhere.
    """

    readers: tuple[str, ...]
    makers: tuple[str, ...]
    head_dim: int = 0
    repeats: int = 1

    def shared(self, scale: torch.Tensor) -> torch.Tensor:
        """Make a scale of the readers' columns equal where heads read the same channel."""
        if self.repeats == 1:
            return scale
        heads = scale.view(-1, self.repeats, self.head_dim)
        return heads.log().mean(1, keepdim=True).exp().expand_as(heads).reshape(-1)

    def of_makers(self, scale: torch.Tensor) -> torch.Tensor:
        """Return a shared scale as the makers' rows have it."""
        if self.repeats == 1:
            return scale
        return scale.view(-1, self.repeats, self.head_dim)[:, 0].reshape(-1)


@dataclass(frozen=True, slots=True)
class Folds:
    """Factors on columns and rows of parameters.

    Attributes:
        columns: What a weight's columns are multiplied by, float32 `[columns]`.
        rows: What a parameter's rows are divided by, float32 `[rows]`.
    """

    columns: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, joint: Joint, scale: torch.Tensor) -> None:
        """Scale a joint's channels."""
        for name in joint.readers:
            self.columns[name] = scale
        for name in joint.makers:
            self.rows[name] = joint.of_makers(scale)

    def save(self, path: Path) -> None:
        """Write all factors."""
        from safetensors.torch import save_file

        tensors = {f"columns.{name}": scale for name, scale in self.columns.items()}
        tensors |= {f"rows.{name}": scale for name, scale in self.rows.items()}
        save_file({name: scale.clone() for name, scale in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Folds:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        found = cls()
        for key, scale in load_file(path).items():
            kind, _, name = key.partition(".")
            (found.columns if kind == "columns" else found.rows)[name] = scale
        return found


class Folded(View):
    """Weights with factors on their columns and rows."""

    def __init__(self, base: Source, folds: Folds) -> None:
        super().__init__(base)
        self._folds = folds

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive)."""
        found = super().rows(name, start, stop)
        if (columns := self._folds.columns.get(name)) is not None:
            found = found * columns
        if (divisor := self._folds.rows.get(name)) is not None:
            part = divisor[start:stop]
            found = found / (part if found.dim() == 1 else part.unsqueeze(1))
        return found

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same numbers."""
        changed = name in self._folds.columns or name in self._folds.rows
        return super().identity(name) + (f" folded as {name}" if changed else "")


def joints(exported: ExportedProgram, frozen: frozenset[str]) -> dict[str, Joint]:
    """Return the joints of a graph by the name of the node that makes the channels.

    Args:
        exported: From `pipeline/export.py`.
        frozen: Weights that may not change (a head that is the embedding table).
    """
    names = parameter_names(exported)
    found: dict[str, Joint] = {}
    for node in operators(exported):
        readers = _readers(node, names)
        if not readers or frozen.intersection(readers):
            continue
        joint = _joint(node, readers, names)
        if joint is not None:
            found[node.name] = joint
    return found


def _readers(node: Node, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the weights that read a node, if nothing but linear maps does."""
    linear = torch.ops.aten.linear.default
    users = list(node.users)
    if not users or any(u.target is not linear or arguments(u)[0] is not node for u in users):
        return ()
    return tuple(names[arguments(user)[1].name] for user in users)


def _joint(node: Node, readers: tuple[str, ...], names: Mapping[str, str]) -> Joint | None:
    target = str(node.target)
    if target.startswith("mobilepack.") and "_norm" in target and "head_norm" not in target:
        parameters = [a for a in arguments(node)[1:] if isinstance(a, torch.fx.Node)]
        makers = tuple(names[parameter.name] for parameter in parameters)
        return Joint(readers, makers) if makers else None
    if node.target is torch.ops.aten.mul.Tensor:
        factors = arguments(node)[:2]
        made = next((made for factor in factors if (made := _linear(factor, names))), ())
        return Joint(readers, made) if made else None
    if node.target is torch.ops.mobilepack.attention.default:
        made = _linear(arguments(node)[2], names)
        cache = arguments(node)[3].meta["val"].shape
        head_dim, width = int(cache[3]), int(node.meta["val"].shape[-1])
        repeats = width // (int(cache[2]) * head_dim)
        return Joint(readers, made, head_dim, repeats) if made else None
    return None


def _linear(node: object, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return weight and bias of a linear map that nothing else reads."""
    if not isinstance(node, torch.fx.Node) or node.target is not torch.ops.aten.linear.default:
        return ()
    if len(node.users) != 1:
        return ()
    parameters = [a for a in arguments(node)[1:] if isinstance(a, torch.fx.Node)]
    return tuple(names[parameter.name] for parameter in parameters)
