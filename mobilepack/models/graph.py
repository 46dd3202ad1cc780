"""Typed glances at an exported graph, where torch.fx itself promises next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


def arguments(node: Node) -> tuple[Any, ...]:
    """Return a node's positional arguments: nodes and plain values."""
    return tuple(node.args)


def shape(node: Node) -> tuple[int | torch.SymInt, ...]:
    """Return the shape of the tensor a node yields; a dimension may be symbolic."""
    return tuple(node.meta["val"].shape)


def fixed(node: Node, axis: int) -> int:
    """Return a dimension that is not symbolic."""
    return int(shape(node)[axis])


def operators(exported: ExportedProgram) -> list[Node]:
    """Return the operator calls in order."""
    return [node for node in exported.graph.nodes if node.op == "call_function"]


def parameter_names(exported: ExportedProgram) -> dict[str, str]:
    """Return the module's name of each parameter and buffer by its placeholder's name."""
    return {
        spec.arg.name: str(spec.target)
        for spec in exported.graph_signature.input_specs
        if spec.target is not None
    }


def cache_length(exported: ExportedProgram) -> int | None:
    """Return how many positions the shortest KV cache holds, None where there is none."""
    attention = torch.ops.mobilepack.attention.default
    caches = [arguments(node)[3] for node in operators(exported) if node.target is attention]
    return min((fixed(cache, 1) for cache in caches), default=None)


def result(exported: ExportedProgram) -> Node:
    """Return the node whose value is the program's only output."""
    output = next(node for node in exported.graph.nodes if node.op == "output")
    (value,) = arguments(output)[0]
    if not isinstance(value, torch.fx.Node):
        raise TypeError(f"not a node: {value}")
    return value
