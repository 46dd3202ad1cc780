"""Build plans: what the user leaves open the target decides, and every choice counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import BuildPlan
from mobilepack.errors import UsageError
from mobilepack.models.weights import open_model
from mobilepack.pipeline.plan import Choices, lengths_for, plan_build, recipe_for, toolchain
from mobilepack.target import load_target
from tests.models.networks import tiny_spec

TARGET = load_target("xnnpack")
SPEC = tiny_spec(max_position_embeddings=512)


def test_a_plan_without_choices_is_the_targets() -> None:
    assert recipe_for(TARGET, Choices()).model_dump() == vars(TARGET.recipe) | {}
    assert lengths_for(SPEC, TARGET, Choices()) == (512, 512)
    longer = tiny_spec(max_position_embeddings=100_000)
    shape = TARGET.shape
    assert lengths_for(longer, TARGET, Choices()) == (shape.max_seq_len, shape.prefill_chunk)


def test_fp32_brings_an_fp32_embedding_unless_one_is_asked_for() -> None:
    recipe = recipe_for(TARGET, Choices(linear="fp32"))
    assert (recipe.linear, recipe.group_size, recipe.embedding) == ("fp32", 0, "fp32")
    assert recipe_for(TARGET, Choices(linear="fp32", embedding="8w")).embedding == "8w"


@given(
    group=st.sampled_from([None, 32, 64, 128]),
    embedding=st.sampled_from([None, "fp32", "8w", "4w"]),
    cache=st.sampled_from([None, "fp32", "fp16"]),
)
def test_every_choice_is_kept(group: int | None, embedding: str | None, cache: str | None) -> None:
    choices = Choices(linear="8da4w", group_size=group, embedding=embedding, kv_cache=cache)
    recipe = recipe_for(TARGET, choices)
    assert recipe.linear == "8da4w"
    assert recipe.group_size == (group or TARGET.recipe.group_size)
    assert recipe.embedding == (embedding or TARGET.recipe.embedding)
    assert recipe.kv_cache == (cache or TARGET.recipe.kv_cache)


@pytest.mark.parametrize(
    ("choices", "code"),
    [
        (Choices(max_seq_len=513), "sequence-too-long"),
        (Choices(max_seq_len=64, prefill_chunk=65), "chunk-too-long"),
        (Choices(linear="fp32", group_size=64), "group-of-fp32"),
    ],
)
def test_choices_that_contradict_each_other_are_errors(choices: Choices, code: str) -> None:
    with pytest.raises(UsageError) as failure:  # noqa: PT012  either of them may refuse
        lengths_for(SPEC, TARGET, choices)
        recipe_for(TARGET, choices)
    assert failure.value.code == code


@given(longest=st.integers(2, 512), chunk=st.integers(1, 512))
def test_lengths_are_as_asked_for_or_refused(longest: int, chunk: int) -> None:
    choices = Choices(max_seq_len=longest, prefill_chunk=chunk)
    if chunk > longest:
        with pytest.raises(UsageError):
            lengths_for(SPEC, TARGET, choices)
    else:
        assert lengths_for(SPEC, TARGET, choices) == (longest, chunk)


VARIATIONS: list[dict[str, Any]] = [
    {"linear": "fp32"},
    {"group_size": 64},
    {"embedding": "8w"},
    {"kv_cache": "fp32"},
    {"max_seq_len": 64},
    {"prefill_chunk": 16},
    {"lowering": "reference"},
]


def test_the_plan_id_changes_with_every_choice_and_with_the_checkpoint(checkpoint: Path) -> None:
    model = open_model(checkpoint)
    plans = [plan_build(model, TARGET, Choices(**v)) for v in ({}, *VARIATIONS)]
    model.close()
    ids = {content_id(plan) for plan in plans}
    assert len(ids) == len(plans)
    moved = plans[0].model.model_copy(update={"fingerprint": "0" * 64})
    assert content_id(plans[0].model_copy(update={"model": moved})) not in ids


def test_the_plan_id_does_not_depend_on_the_order_of_keys(checkpoint: Path) -> None:
    model = open_model(checkpoint)
    plan = plan_build(model, TARGET, Choices())
    model.close()
    turned = dict(reversed(plan.model_dump().items()))
    turned["toolchain"] = dict(reversed(plan.toolchain.items()))
    assert content_id(BuildPlan.model_validate(turned)) == content_id(plan)
    assert set(toolchain()) == {"mobilepack", "torch", "executorch", "torchao"}
