"""Shards: as few as the limit allows, and one after the other they are the whole graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mobilepack.backends.qnn.evaluate import Case, evaluate
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.backends.qnn.shards import Cuts, crossing, plan_cuts, shards_of
from mobilepack.models.static import StaticShape, input_names, static_decoder
from tests.backends.qnn.test_trace import CONTEXT, TOKENS, constants_of
from tests.models.networks import RandomWeights, tiny_spec

LAYER, ENDS = 100, 250


def sized(limit: int) -> tuple[int, ...]:
    """Return the shards of six layers of 100 bytes, 250 before and after them."""
    graph = Tracer(tiny_spec(num_hidden_layers=6), CONTEXT, "together", True).graph(1, CONTEXT - 1)
    bytes_of = {"embed.weight": ENDS, "head.weight": ENDS}
    bytes_of |= {f"layers.{index}.q.weight": LAYER for index in range(6)}
    return plan_cuts(graph, lambda t: bytes_of.get(t.name, 0), limit).first_layers


@pytest.mark.parametrize(
    ("limit", "firsts"),
    [(1100, (0,)), (1099, (0, 5)), (550, (0, 3)), (400, (0, 1, 5)), (1, (0, 1, 2, 3, 4, 5))],
)
def test_there_are_as_few_shards_as_the_limit_allows(limit: int, firsts: tuple[int, ...]) -> None:
    assert sized(limit) == firsts


@pytest.mark.parametrize("firsts", [(0,), (0, 1), (0, 2), (0, 1, 2)])
def test_shards_in_a_row_are_the_whole(tmp_path: Path, firsts: tuple[int, ...]) -> None:
    spec = tiny_spec(num_hidden_layers=3)
    weights = RandomWeights(spec)
    constants = constants_of(tmp_path, spec, weights)
    graph = Tracer(spec, CONTEXT, "together", True).graph(TOKENS, CONTEXT - 1)
    module = static_decoder(spec, StaticShape(TOKENS, CONTEXT, CONTEXT - 1), weights)
    values = dict(zip(input_names(spec), module.example(-100.0), strict=True))
    (wanted,) = evaluate(
        [Case(graph, dict(values))], constants.operands, lambda _, v, __: v, lambda _: None
    )
    shards = shards_of(graph, Cuts(firsts))
    assert sum(len(shard.steps) for shard in shards) == len(graph.steps)
    for shard in shards:
        inputs = {t.name: values[t.name] for t in shard.inputs}
        (made,) = evaluate(
            [Case(shard, inputs)], constants.operands, lambda _, v, __: v, lambda _: None
        )
        values |= {t.name: v for t, v in zip(shard.outputs, made, strict=True)}
    assert all(torch.equal(values[t.name], w) for t, w in zip(graph.outputs, wanted, strict=True))
    assert bool(crossing(graph, shards)) == (len(firsts) > 1)
