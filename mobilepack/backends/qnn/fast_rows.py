"""What the fake-quantised model computes: the reference of a quantised program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mobilepack.backends.qnn.evaluate import Case
from mobilepack.backends.qnn.fake_quantised import FakeQuantised
from mobilepack.backends.qnn.graph import Graph
from mobilepack.backends.qnn.request import LowerRequest, mask_value
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.contract.reference import GreedyReference, Rows, Variant, record, sample_ids
from mobilepack.models.static_session import StaticSession

GREEDY_TOKENS = 24

_VARIANTS: tuple[Variant, ...] = ("quantised", "floor")
Outputs = list[torch.Tensor]


def fake_quantised_rows(
    request: LowerRequest,
    tracer: Tracer,
    session: Callable[[FakeQuantised], StaticSession],
    model: FakeQuantised,
    tell: Callable[[str, float], None],
) -> tuple[dict[Variant, Rows], tuple[GreedyReference, ...]]:
    """Return the rows `quantised` and, with roundings at random, `floor`; and greedy text.

    Args:
        session: Makes an empty session of floats over the decode graph.
    """
    texts = [ids for _, ids in request.passages]
    cases = [tracer.text(ids, mask_value(request.precision)) for _ in _VARIANTS for ids in texts]
    noisy = frozenset(range(len(texts), 2 * len(texts)))
    found = model.run(cases, lambda share: tell("reference", 0.8 * share), noisy)
    following = [i for ids in texts for i in (*ids[1:], -1)]
    sampled = sample_ids(request.spec.vocab_size)
    rows: dict[Variant, Rows] = {}
    for variant, parts in zip(_VARIANTS, (found[: len(texts)], found[len(texts) :]), strict=True):
        logits = torch.cat([outputs[0] for outputs in parts]).numpy()
        rows[variant] = record(logits, following, sampled)
    greedy = _greedy(request, session(model), found[0])
    tell("reference", 1.0)
    return rows, greedy


def decoding(
    form: StaticForm, methods: tuple[Method, ...], decode: Graph, model: FakeQuantised
) -> StaticSession:
    """Return an empty session of floats over the decode graph."""
    names = [t.name for t in decode.inputs]

    def run(_: str, arrays: Sequence[Any]) -> list[Any]:
        inputs = {n: torch.from_numpy(a) for n, a in zip(names, arrays, strict=True)}
        (outputs,) = model.run([Case(decode, inputs)], lambda _: None)
        return [output.numpy() for output in outputs]

    return StaticSession(form, methods, run)


def _greedy(
    request: LowerRequest, session: StaticSession, outputs: Outputs
) -> tuple[GreedyReference, ...]:
    """Continue half of the first passage, whose keys and values are known."""
    _, ids = request.passages[0]
    prompt = ids[: len(ids) // 2 + 1]
    length = min(GREEDY_TOKENS, request.max_seq_len - len(prompt))
    if length < 1:
        return ()
    for (name, cache), output in zip(session.caches.items(), outputs[1:], strict=True):
        known = output.narrow(3 if name[0] == "k" else 2, 0, len(prompt)).numpy()
        cache[tuple(slice(n) for n in known.shape)] = known
    logits = outputs[0][len(prompt) - 1].numpy()
    said: list[int] = []
    gaps: list[float] = []
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
