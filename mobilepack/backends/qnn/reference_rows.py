"""What the fake-quantised model computes: the reference of a quantised program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from mobilepack.backends.qnn.greedy import Feed, greedy_text
from mobilepack.backends.qnn.quantise import run_eager
from mobilepack.backends.qnn.request import LowerRequest
from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.contract.reference import GreedyReference, Rows, Variant, record, sample_ids
from mobilepack.models.static_session import StaticSession

_BYTE = 255


def fake_quantised_rows(
    request: LowerRequest,
    form: StaticForm,
    methods: tuple[Method, ...],
    decode: GraphModule,
    tell: Callable[[str, float], None],
) -> tuple[dict[Variant, Rows], tuple[GreedyReference, ...]]:
    """Return the rows `quantised` and, with roundings at random, `floor`; and greedy text.

    Every passage is fed token by token from position 0 on.
    """
    sampled = sample_ids(request.spec.vocab_size)
    following = [i for _, ids in request.passages for i in (*ids[1:], -1)]
    graphs: dict[Variant, GraphModule] = {
        "quantised": decode,
        "floor": dithered(decode),
    }
    rows: dict[Variant, Rows] = {}
    for number, (variant, graph) in enumerate(graphs.items()):
        torch.manual_seed(0)
        session = StaticSession(form, methods, _runner(graph))
        full = [
            session(np.array(ids[at : at + 1]), at)
            for _, ids in request.passages
            for at in range(len(ids))
        ]
        rows[variant] = record(np.stack(full), following, sampled)
        tell("reference", (number + 1) / len(graphs))
    session = StaticSession(form, methods, _runner(decode))
    return rows, greedy_text(request, session, _token_by_token(session))


def _runner(graph: GraphModule) -> Callable[[str, Any], list[Any]]:
    return lambda name, inputs: run_eager(graph, inputs)


def _token_by_token(session: StaticSession) -> Feed:
    def feed(prompt: tuple[int, ...]) -> npt.NDArray[Any]:
        return [session(np.array([token]), at) for at, token in enumerate(prompt)][-1]

    return feed


def dithered(graph: GraphModule) -> GraphModule:
    """Return the graph with its 16-bit roundings made at random, up or down by what is cut off.

    That is the least that another arithmetic does: the NPU adds and multiplies integers in an order
    and with intermediate roundings of its own, so a value may end one step beside. Rounding at
    random (x + u * scale before the rounding, u uniform in +-1/2) moves a value by less than a step
    and by nothing on average. The same noise comes again at every call, for it is seeded.
    """
    graph = copy.deepcopy(graph)
    nodes = [n for n in graph.graph.nodes if _is_wide_rounding(n)]
    for node in nodes:
        value, scale = node.args[0], node.args[1]
        with graph.graph.inserting_before(node):
            noise = graph.graph.call_function(torch.ops.aten.rand_like.default, (value,))
            centred = graph.graph.call_function(torch.ops.aten.sub.Tensor, (noise, 0.5))
            scaled = graph.graph.call_function(torch.ops.aten.mul.Tensor, (centred, scale))
            moved = graph.graph.call_function(torch.ops.aten.add.Tensor, (value, scaled))
        node.replace_input_with(value, moved)
    graph.recompile()
    return graph


def _is_wide_rounding(node: Node) -> bool:
    """Tell the roundings of activations to 16 bits from those of weights and of the cache."""
    if "quantized_decomposed.quantize_per_tensor" not in str(node.target):
        return False
    low, high = node.args[3], node.args[4]
    return isinstance(low, int) and isinstance(high, int) and high - low > _BYTE
