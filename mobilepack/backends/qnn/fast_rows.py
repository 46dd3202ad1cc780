"""What the fake-quantised model computes: the reference of a quantised program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch

from mobilepack.backends.qnn.evaluate import Case
from mobilepack.backends.qnn.fake_quantised import FakeQuantised
from mobilepack.backends.qnn.graph import Graph
from mobilepack.backends.qnn.greedy import Feed, greedy_text
from mobilepack.backends.qnn.request import LowerRequest, mask_value
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.contract.reference import GreedyReference, Rows, Variant, record, sample_ids
from mobilepack.models.static_session import StaticSession

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
    empty = session(model)
    greedy = greedy_text(request, empty, _with_passage(empty, found[0]))
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


def _with_passage(session: StaticSession, outputs: Outputs) -> Feed:
    """Return what fills a session's caches with the keys and values of a passage's beginning."""

    def feed(prompt: tuple[int, ...]) -> npt.NDArray[Any]:
        for (name, cache), output in zip(session.caches.items(), outputs[1:], strict=True):
            known = output.narrow(3 if name[0] == "k" else 2, 0, len(prompt)).numpy()
            cache[tuple(slice(n) for n in known.shape)] = known
        logits: npt.NDArray[Any] = outputs[0][len(prompt) - 1].numpy()
        return logits

    return feed
