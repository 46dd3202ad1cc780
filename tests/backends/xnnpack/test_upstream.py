"""The fast path against ExecuTorch's own lowering: same logits from the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.manifest import Recipe
from tests.backends.xnnpack.conftest import Programs
from tests.backends.xnnpack.programs import FP32_RECIPE
from tests.models.networks import random_ids, relative_rms, same_top1
from tests.runtime import Program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

EIGHT, FOUR = Recipe(embedding="8w"), Recipe(embedding="4w")
CASES: list[tuple[str, Recipe, dict[str, Any]]] = [
    ("llama", FOUR, {"attention_bias": True, "intermediate_size": 100}),
    ("mistral", FP32_RECIPE, {}),
    ("qwen2", EIGHT, {}),
    ("qwen3", FP32_RECIPE, {}),
]
WAYS = [(1,), (7,), (8, 1, 1), (8, 8, 7), (1,) * 12]


@pytest.mark.parametrize(("family", "recipe", "options"), CASES, ids=["l", "m", "q2", "q3"])
def test_both_ways_down_give_the_same_logits(
    program: Programs, tmp_path: Path, family: str, recipe: Recipe, options: dict[str, Any]
) -> None:
    """ExecuTorch takes 15 s of CPU for a single tiny layer: one layer, one recipe per family."""
    from mobilepack.backends.xnnpack.upstream import lower_upstream

    made = program(family, recipe, num_hidden_layers=1, **options)
    model, path = made.model, tmp_path / "upstream.pte"
    lengths = (model.context, model.chunk)
    facts = lower_upstream(model.spec, dict(model.weights), recipe, lengths, model.metadata, path)
    theirs, ours = Program(path), made.load()
    # fp32 differs by the order of sums, 8da4w hardly more in a single layer: the integers are the
    # same and few activations lie on a boundary
    limit = (
        1e-5 if recipe.linear == "fp32" else 2 * model.floor([random_ids(model.spec, 24)], recipe)
    )
    for seed, calls in enumerate(WAYS):
        ids = random_ids(model.spec, sum(calls), seed)
        found, expected = ours.feed(ids, calls), theirs.feed(ids, calls)
        assert relative_rms(found, expected) <= limit
        assert limit > 1e-5 or same_top1(found, expected)
    assert theirs.constants() == ours.constants()
    assert facts.state_bytes == made.lowered.state_bytes
    assert set(facts.tally.rows) == set(made.lowered.tally.rows)
    assert facts.delegates > 0
