"""Cut a model's graphs between layers, so that no context is larger than the SoC takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobilepack.backends.qnn.graph import Graph, Step, Tensor

_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where every graph of a model is cut.

    Attributes:
        first_layers: Of each shard; the first shard begins with the embedding (layer 0), the last
            ends with the head.
    """

    first_layers: tuple[int, ...]


def plan_cuts(graph: Graph, size: Callable[[Tensor], int], limit_bytes: int) -> Cuts:
    """Return as few shards as hold at most so many bytes of constants each.

    Args:
        graph: Any method's.
        size: Returns the bytes of a constant.
        limit_bytes: A layer that is larger has a shard of its own.
    """
    sizes: dict[int, int] = {}
    for layer, steps in _by_layer(graph):
        constants = {t.name: t for s in steps for t in s.inputs if t.role == "constant"}
        sizes[layer] = sizes.get(layer, 0) + sum(size(t) for t in constants.values())
    firsts, held = [0], 0
    for layer, bytes_ in sizes.items():
        if held and held + bytes_ > limit_bytes:
            firsts.append(layer)
            held = 0
        held += bytes_
    return Cuts(tuple(firsts))


def _by_layer(graph: Graph) -> list[tuple[int, list[Step]]]:
    """Return the steps of each layer; what has no layer belongs to the one before, the head too."""
    found: list[tuple[int, list[Step]]] = [(0, [])]
    for step in graph.steps:
        named = [_LAYER.match(t.name) for t in step.inputs if t.role == "constant"]
        layers = [int(match[1]) for match in named if match]
        if layers and layers[0] > found[-1][0]:
            found.append((layers[0], []))
        found[-1][1].append(step)
    return found


def shards_of(graph: Graph, cuts: Cuts) -> tuple[Graph, ...]:
    """Return a method's shards; what one makes and a later one reads is an output of the first."""
    groups: list[list[Step]] = [[] for _ in cuts.first_layers]
    for layer, steps in _by_layer(graph):
        groups[sum(layer >= first for first in cuts.first_layers) - 1].extend(steps)
    return tuple(_shard(graph, groups, index) for index in range(len(groups)))


def _shard(graph: Graph, groups: Sequence[Sequence[Step]], index: int) -> Graph:
    steps = groups[index]
    made = {step.output.name for step in steps}
    later = {t.name for group in groups[index + 1 :] for step in group for t in step.inputs}
    wanted = {t.name for t in graph.outputs} | later
    read = {
        t.name: t for step in steps for t in step.inputs if t.role != "constant"
    }  # in the order of first use
    outside = {t.name for t in graph.inputs}
    inputs = [t for t in graph.inputs if t.name in read]
    inputs += [t for name, t in read.items() if name not in made and name not in outside]
    outputs = [step.output for step in steps if step.output.name in wanted]
    return Graph(tuple(inputs), tuple(outputs), tuple(steps))


def crossing(graph: Graph, shards: Sequence[Graph]) -> tuple[Tensor, ...]:
    """Return what passes between shards and is no output of the method itself."""
    own = {t.name for t in graph.outputs}
    return tuple(t for shard in shards for t in shard.outputs if t.name not in own)
