"""The nodes of an exported decoder by the layer that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilepack.models.graph import arguments, operators

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """A run of nodes of one layer.

    Attributes:
        name: `embedding`, `layers.0`, …, `head`; a block that is used again gets a number.
    """

    name: str
    nodes: tuple[Node, ...]

    @property
    def last(self) -> Node:
        """The node whose value the next layer takes."""
        return self.nodes[-1]


def node_groups(exported: ExportedProgram) -> tuple[NodeGroup, ...]:
    """Return all operators in order, layer by layer."""
    runs: list[tuple[str, list[Node]]] = []
    for node in operators(exported):
        name = _layer(node) or (
            "head" if any(n.startswith("layers.") for n, _ in runs) else "embedding"
        )
        if not runs or runs[-1][0] != name:
            runs.append((name, []))
        runs[-1][1].append(node)
    seen: dict[str, int] = {}
    groups = []
    for name, nodes in runs:
        seen[name] = seen.get(name, 0) + 1
        again = f" (use {seen[name]})" if seen[name] > 1 else ""
        groups.append(NodeGroup(name + again, tuple(nodes)))
    return tuple(groups)


def _layer(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    found = next((path for path in reversed(paths) if path.startswith("layers.")), "")
    return ".".join(found.split(".")[:2])


def operator_name(node: Node) -> str:
    """Return how people call a node's operator: `rope`, `linear`, `attention`."""
    return str(node.target).split(".")[1]


def parameter_of(node: Node, names: Mapping[str, str]) -> str:
    """Return the name of the first parameter or table that a node reads, empty without."""
    found = (names.get(getattr(argument, "name", ""), "") for argument in arguments(node))
    return next((name for name in found if name and not name.startswith("caches.")), "")


def value_inputs(node: Node, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the inputs of a node that other operators computed, in order of its arguments."""
    known = set(nodes)
    return tuple(argument for argument in arguments(node) if argument in known)
