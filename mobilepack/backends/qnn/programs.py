"""Compile a model's graphs to one or two programs: for the HTP emulator, and for the phone.

The emulator does not load a context whose graphs share their weights; a phone from Hexagon V73 on
does, and saves half of the file. Both programs are compiled from the same graphs, encodings and
integers, in one process; the hashes say so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilepack.backends.qnn.assemble import Operands
from mobilepack.backends.qnn.container import Integer, MethodPlan, Part, write_program
from mobilepack.backends.qnn.contexts import (
    Compiler,
    bound_inputs,
    bound_outputs,
    tensor_kinds,
)
from mobilepack.backends.qnn.encodings import Matrix
from mobilepack.backends.qnn.graph import Graph, Step, Tensor
from mobilepack.backends.qnn.options import Options
from mobilepack.backends.qnn.request import ContextFacts
from mobilepack.backends.qnn.shards import crossing, plan_cuts, shards_of

Sharded = Mapping[str, Sequence[Graph]]


def compile_programs(  # noqa: PLR0913  what a compilation is made of
    graphs: Mapping[str, Graph],
    operands: Operands,
    options: Options,
    limit_bytes: int,
    metadata: Mapping[str, Integer],
    paths: tuple[Path, Path | None],
    on_share: Callable[[float], None],
) -> tuple[ContextFacts, ...]:
    """Write the emulator's program and, with a second path, the phone's.

    Args:
        limit_bytes: Constants of a shard at most.
        paths: The emulator's program; the phone's, or None.
    """
    first = next(iter(graphs.values()))
    cuts = plan_cuts(first, lambda t: stored_bytes(t, first, operands), limit_bytes)
    sharded = {name: shards_of(graph, cuts) for name, graph in graphs.items()}
    count = len(cuts.first_layers)
    apart = [{name: shards[i]} for name, shards in sharded.items() for i in range(count)]
    together = [{name: shards[i] for name, shards in sharded.items()} for i in range(count)]
    emulator, phone = paths
    steps = len(apart) + (len(together) if phone else 0)
    facts: list[ContextFacts] = []

    def compiled(path: Path, groups: Sequence[Mapping[str, Graph]], shared: bool) -> None:
        contexts = []
        own = Options(options.soc_model, options.half, share_weights=shared)
        with Compiler(own) as compiler:
            for group in groups:
                on_share(len(facts) / steps)
                contexts.append(compiler.context(group, operands))
                facts.append(
                    ContextFacts(
                        program=path.name,
                        methods=tuple(group),
                        shard=next(i for n, g in group.items() for i in _index(sharded[n], g)),
                        bytes=len(contexts[-1]),
                        sha256=hashlib.sha256(contexts[-1]).hexdigest(),
                        operators=tuple(len(graph.steps) for graph in group.values()),
                    )
                )
            where = {(n, id(g)): i for i, group in enumerate(groups) for n, g in group.items()}
            plans = {n: _plan(n, graphs[n], sharded[n], operands, where) for n in graphs}
            write_program(path, plans, contexts, compiler.compile_spec, metadata)

    compiled(emulator, apart, shared=False)
    if phone:
        compiled(phone, together, shared=True)
    on_share(1.0)
    return tuple(facts)


def _index(shards: Sequence[Graph], graph: Graph) -> list[int]:
    return [index for index, shard in enumerate(shards) if shard is graph]


def _plan(
    name: str,
    graph: Graph,
    shards: Sequence[Graph],
    operands: Operands,
    where: Mapping[tuple[str, int], int],
) -> MethodPlan:
    parts = tuple(
        Part(bound_inputs(shard), bound_outputs(shard), where[name, id(shard)]) for shard in shards
    )
    between = crossing(graph, shards)
    kinds = tensor_kinds((*graph.inputs, *graph.outputs, *between), operands)
    return MethodPlan(graph, kinds, parts, between)


def stored_bytes(tensor: Tensor, graph: Graph, operands: Operands) -> int:
    """Return what a constant takes in a context, without its scales."""
    bits = operands.matrix_bits(tensor) if tensor.name in graph.matrices() else 16
    return math.prod(tensor.shape) * bits // 8


def hashes(graphs: Mapping[str, Graph], operands: Operands) -> tuple[dict[str, str], str]:
    """Return the sha256 of each method's graph with its encodings, and of all constants."""
    of_graphs = {}
    for name, graph in graphs.items():
        inner = [s.output for s in graph.steps if s.output.dtype == "float32"]
        codes = [(t.name, operands.code(t)) for t in inner]
        of_graphs[name] = hashlib.sha256(repr((graph, codes)).encode()).hexdigest()
    digest = hashlib.sha256()
    seen: set[str] = set()
    for step in next(iter(graphs.values())).steps:
        for tensor in step.inputs:
            if tensor.role == "constant" and tensor.name not in seen:
                seen.add(tensor.name)
                digest.update(tensor.name.encode())
                for array in _stored(step, tensor, operands):
                    digest.update(np.ascontiguousarray(array).tobytes())
    return of_graphs, digest.hexdigest()


def _stored(step: Step, tensor: Tensor, operands: Operands) -> list[npt.NDArray[Any]]:
    """Return the arrays that a step's constant is compiled from."""
    if step.kind != "linear":
        return [operands.constant(tensor)]
    x, matrix, *_ = step.inputs
    if tensor is not matrix:
        return [operands.bias(tensor, x, matrix)[0]]
    found = operands.matrix(matrix)
    return [found.integers.numpy(), found.scales.numpy()] if isinstance(found, Matrix) else [found]
