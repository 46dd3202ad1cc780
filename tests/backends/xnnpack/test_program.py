"""Programs of the fast path, run: whatever the calls, the logits are those of eager."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mobilepack.contract.manifest import Recipe
from tests.backends.xnnpack.conftest import Programs, Written
from tests.backends.xnnpack.programs import HALF_RECIPES, RECIPES, is_plain
from tests.models.networks import FAMILIES, eager_logits, random_ids, relative_rms, same_top1

pytestmark = pytest.mark.slow

MAX_RMS_OVER_STD = 1e-5  # fp32: measured 1e-6; sums and exponentials of another order
MAX_RMS_OVER_FLOOR = 2.0  # 8da4w: rounding is chaotic, so each model's own floor is measured
# A half-precision cache: scores and attention weights are rounded to 11 bits as well, which the
# evaluator does not do; a score of 16 is then off by 0.008. Measured 4e-4 to 3e-3.
MAX_RMS_OVER_STD_HALF = 1e-2

CALLS = {
    "shortest": (1,),
    "two": (2,),
    "odd": (5,),
    "longest call": (8,),
    "chunks": (8, 8, 8),
    "odd chunks": (7, 1, 8, 3, 5),
    "decode": (1,) * 10,
    "chunks, then decode": (8, 8) + (1,) * 8,
}

Prompts = list[tuple[int, ...]]


def ends(calls: Sequence[int], start: int = 0) -> list[int]:
    """Return the index of the last token of each call."""
    return [start + sum(calls[: i + 1]) - 1 for i in range(len(calls))]


def prompts(made: Written) -> Prompts:
    """Return one prompt of full length per way to call, all different."""
    return [random_ids(made.model.spec, made.model.context, seed) for seed in range(len(CALLS))]


def check(made: Written, found: torch.Tensor, expected: torch.Tensor, floor: float) -> None:
    assert relative_rms(found, expected) <= max(least_limit(made), MAX_RMS_OVER_FLOOR * floor)
    if is_plain(made.recipe):
        assert same_top1(found, expected)


def least_limit(made: Written) -> float:
    return MAX_RMS_OVER_STD if made.recipe.kv_cache == "fp32" else MAX_RMS_OVER_STD_HALF


def floor_of(made: Written, ids: Prompts) -> float:
    return 0.0 if made.recipe.linear == "fp32" else made.model.floor(ids, made.recipe)


def expected_of(made: Written, ids: tuple[int, ...]) -> torch.Tensor:
    """Return eager's logits after every token, from the evaluator (tests/models/test_streaming)."""
    return made.model.logits(ids, made.recipe)


def check_all_calls(made: Written) -> None:
    """Feed a new prompt in every way, one after the other, without ever clearing the cache."""
    running, ids, found, expected = made.load(), prompts(made), [], []
    ways = [c for c in CALLS.values() if max(c) <= made.model.chunk]
    for calls, prompt in zip(ways, ids, strict=False):
        found.append(running.feed(prompt, calls))
        expected.append(expected_of(made, prompt)[ends(calls)])
        if is_plain(made.recipe):
            check(made, found[-1], expected[-1], 0.0)
    check(made, torch.cat(found), torch.cat(expected), floor_of(made, ids[: len(ways)]))


@pytest.mark.parametrize("recipe", [*RECIPES, *HALF_RECIPES])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_computes_what_eager_does_however_it_is_called(
    program: Programs, family: str, recipe: str
) -> None:
    check_all_calls(program(family, recipe))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_computes_what_the_decoder_itself_does(program: Programs, family: str) -> None:
    made = program(family, "fp32")
    ids, calls = random_ids(made.model.spec, made.model.context), CALLS["odd chunks"]
    expected = eager_logits(made.model.spec, made.model.weights, ids)[ends(calls)]
    check(made, made.load().feed(ids, calls), expected, 0.0)


@pytest.mark.parametrize("recipe", ["fp32", "8da4w+4w", "fp32+kv16", "fp32+kv8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rewinding_forgets_what_came_after(program: Programs, family: str, recipe: str) -> None:
    made = program(family, recipe)
    running = made.load()
    long, other = random_ids(made.model.spec, 24), random_ids(made.model.spec, 9, seed=1)
    running.feed(long, (8, 8, 8))
    for keep, calls in ((11, (8, 1)), (4, (1,) * 9), (0, (2, 7)), (15, (1, 8))):
        found = running.feed(other, calls, start=keep)
        whole = long[:keep] + other
        expected = expected_of(made, whole)[ends(calls, keep)]
        check(made, found, expected, floor_of(made, [whole]))
        running.feed(long, (8, 8, 8))


LONG: list[tuple[int, ...]] = [
    (66, 66, 18),
    (63, 1, 1, 1, 1),
    (1,) * 70,
    (65, 64, 1, 20),
    (2, 62, 64, 22),
    (66, 62, *(1,) * 10),
]


@pytest.mark.parametrize("recipe", ["fp32", "fp32+kv16", "fp32+kv8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_of_many_blocks_is_read_across_their_borders(
    program: Programs, family: str, recipe: str
) -> None:
    made = program(family, recipe, context=150, chunk=66, max_position_embeddings=150)
    running = made.load()
    for seed, calls in enumerate(LONG):
        ids = random_ids(made.model.spec, sum(calls), seed)
        check(made, running.feed(ids, calls), expected_of(made, ids)[ends(calls)], 0.0)
    other, keep = random_ids(made.model.spec, 8, seed=9), 61
    found = running.feed(other, (5, 1, 1, 1), start=keep)
    expected = expected_of(made, (*ids[:keep], *other))[ends((5, 1, 1, 1), keep)]
    check(made, found, expected, 0.0)


@pytest.mark.parametrize("recipe", ["fp32", "8da4w+4w", "8da4w+kv16"])
def test_a_prompt_leaves_nothing_behind_for_the_next(program: Programs, recipe: str) -> None:
    """The same prompt gives the same bits on a fresh program and after another one."""
    made = program("mistral", recipe)
    ids, calls = random_ids(made.model.spec, 20), (8, 8, 1, 1, 2)
    fresh = made.load().feed(ids, calls)
    used = made.load()
    used.feed(random_ids(made.model.spec, 24, seed=1), (8, 8, 8))
    assert torch.equal(used.feed(ids, calls), fresh)


@pytest.mark.parametrize(
    ("family", "options", "recipe"),
    [
        ("llama", {"chunk": 1}, "fp32"),
        ("llama", {"chunk": 1}, "8da4w+4w"),
        ("mistral", {"chunk": 1}, "fp32"),
        ("mistral", {"chunk": 1}, "fp32+kv16"),
        ("llama", {"chunk": 2, "context": 2}, "fp32+kv16"),
        ("qwen3", {"chunk": 24}, "fp32+kv16"),
        ("mistral", {"sliding_window": 1}, "fp32+kv16"),
        ("llama", {"chunk": 2, "context": 2}, "fp32"),
        ("llama", {"chunk": 1, "context": 2}, "fp32"),
        ("qwen3", {"chunk": 24}, "fp32"),
        ("qwen2", {"chunk": 24}, "8da4w+8w"),
        ("mistral", {"chunk": 24, "sliding_window": 24}, "fp32"),
        ("mistral", {"sliding_window": 23}, "fp32"),
        ("mistral", {"sliding_window": 1}, "fp32"),
    ],
    ids=str,
)
def test_lengths_and_windows_at_their_limits(
    program: Programs, family: str, options: dict[str, Any], recipe: str
) -> None:
    made = program(family, recipe, **options)
    running, context, chunk = made.load(), made.model.context, made.model.chunk
    for seed, first in enumerate(dict.fromkeys((chunk, 1))):
        ids = random_ids(made.model.spec, context, seed)
        calls = (first,) + (1,) * (context - first)
        found, expected = running.feed(ids, calls), expected_of(made, ids)[ends(calls)]
        check(made, found, expected, floor_of(made, [ids]))


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "biases and tied": ("qwen2", {"tie_word_embeddings": True}),
    "untied": ("qwen3", {"tie_word_embeddings": False}),
    "one kv head": ("llama", {"num_key_value_heads": 1}),
    "as many kv heads": ("llama", {"num_key_value_heads": 4}),
    "wide heads": ("llama", {"head_dim": 48, "num_attention_heads": 3, "num_key_value_heads": 3}),
    "gelu": ("llama", {"hidden_act": "gelu"}),
    "gelu_tanh": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "relu": ("llama", {"hidden_act": "relu"}),
    "some windows": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "one layer": ("llama", {"num_hidden_layers": 1}),
    "odd vocabulary": ("llama", {"vocab_size": 251}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_a_config_can_have(program: Programs, shape: str) -> None:
    family, options = SHAPES[shape]
    check_all_calls(program(family, "fp32", **options))


WIDTHS: list[tuple[int, dict[str, Any], set[str]]] = [
    (64, {"intermediate_size": 96}, {"int4 group 64", "int4 group 32"}),
    (128, {"hidden_size": 128}, {"int4 group 128", "int4 group 32"}),
    (128, {"hidden_size": 64, "intermediate_size": 192}, {"int4 group 64"}),
    (32, {"intermediate_size": 100}, {"int4 group 32", "int8 per row"}),
    (64, {"hidden_size": 72, "head_dim": 16}, {"int4 group 64", "int4 group 32", "int8 per row"}),
    (32, {"attention_bias": True, "mlp_bias": True}, {"int4 group 32"}),
]


@pytest.mark.parametrize(("group", "options", "formats"), WIDTHS, ids=str)
def test_groups_that_do_not_divide_are_smaller_or_int8_and_never_fp32(
    program: Programs, group: int, options: dict[str, Any], formats: set[str]
) -> None:
    recipe = Recipe.model_validate({"group_size": group, "embedding": "8w"})
    made = program("llama", recipe, **options)
    tally = made.lowered.tally.rows
    assert set(tally) == formats | {"fp32", "embedding int8 per row"}
    vectors = sum(w.numel() for w in made.model.weights.values() if w.ndim == 1)
    assert tally["fp32"] == (vectors, 4 * vectors)
    check_all_calls(made)


def test_an_int4_embedding_of_odd_width_is_int8(program: Programs) -> None:
    made = program("llama", "8da4w+4w", hidden_size=72, head_dim=16)
    assert "embedding int8 per row" in made.lowered.tally.rows
    check_all_calls(made)


def test_constant_methods_answer_what_they_were_given(program: Programs) -> None:
    made = program("llama", "fp32")
    expected = {n: list(v) if isinstance(v, tuple) else [v] for n, v in made.model.metadata.items()}
    assert made.load().constants() == expected
