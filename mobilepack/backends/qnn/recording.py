"""What the fake-quantised model computes: the reference of a quantised program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule

from mobilepack.backends.qnn.quantise import run_eager
from mobilepack.backends.qnn.request import LowerRequest
from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.contract.reference import GreedyReference, Rows, Variant, record, sample_ids
from mobilepack.models.static_session import StaticSession

GREEDY_TOKENS = 24


def fake_quantised_rows(
    request: LowerRequest,
    form: StaticForm,
    methods: tuple[Method, ...],
    decode: GraphModule,
    tell: Callable[[str, float], None],
) -> tuple[dict[Variant, Rows], tuple[GreedyReference, ...]]:
    """Return the rows `quantised` and, with the embedded tokens moved, `floor`; and greedy text.

    Every passage is fed token by token from position 0 on.
    """
    sampled = sample_ids(request.spec.vocab_size)
    following = [i for _, ids in request.passages for i in (*ids[1:], -1)]
    graphs: dict[Variant, GraphModule] = {
        "quantised": decode,
        "floor": moved(decode, request.perturbation),
    }
    rows: dict[Variant, Rows] = {}
    for number, (variant, graph) in enumerate(graphs.items()):
        session = StaticSession(form, methods, _runner(graph))
        full = [
            session(np.array(ids[at : at + 1]), at)
            for _, ids in request.passages
            for at in range(len(ids))
        ]
        rows[variant] = record(np.stack(full), following, sampled)
        tell("reference", (number + 1) / len(graphs))
    session = StaticSession(form, methods, _runner(decode))
    return rows, _greedy(request, session)


def _runner(graph: GraphModule) -> Callable[[str, Any], list[Any]]:
    return lambda name, inputs: run_eager(graph, inputs)


def _greedy(request: LowerRequest, session: StaticSession) -> tuple[GreedyReference, ...]:
    _, ids = request.passages[0]
    prompt = ids[: len(ids) // 2 + 1]
    length = min(GREEDY_TOKENS, request.max_seq_len - len(prompt))
    if length < 1:
        return ()
    for at, token in enumerate(prompt):
        logits = session(np.array([token]), at)
    said, gaps = [], []
    for at in range(len(prompt), len(prompt) + length):
        best = torch.from_numpy(logits).topk(2)
        said.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        if len(said) < length:
            logits = session(np.array(said[-1:]), at)
    return (
        GreedyReference(
            name="greedy",
            variant="quantised",
            prompt_ids=prompt,
            token_ids=tuple(said),
            gaps=tuple(gaps),
        ),
    )


def moved(graph: GraphModule, size: float) -> GraphModule:
    """Return the graph with noise of a relative size on the embedded tokens.

    The noise comes after they are quantised, for it is smaller than their step.
    """
    graph = copy.deepcopy(graph)
    (embedding,) = (n for n in graph.graph.nodes if n.target is torch.ops.aten.embedding.default)
    last = node = embedding
    while len(node.users) == 1 and "quantize_per_tensor" in str(next(iter(node.users)).target):
        (node,) = node.users
        last = node if "dequantize_per_tensor" in str(node.target) else last
    generator = torch.Generator().manual_seed(0)
    channels = embedding.meta["val"].shape[-1]
    graph.register_buffer("noise", 1 + size * torch.randn(channels, generator=generator))
    with graph.graph.inserting_after(last):
        noise = graph.graph.get_attr("noise")
    with graph.graph.inserting_after(noise):
        product = graph.graph.call_function(torch.ops.aten.mul.Tensor, (last, noise))
    last.replace_all_uses_with(product, delete_user_cb=lambda user: user is not product)
    graph.recompile()
    return graph
