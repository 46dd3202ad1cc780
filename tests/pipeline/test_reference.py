"""Which sequences a reference records, for models of any size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.manifest import Recipe
from mobilepack.models.streaming import FP32, Quantisation
from mobilepack.pipeline.reference import choose_passages, quantisation_of


@given(
    vocab=st.sampled_from([256, 2048, 32_000, 151_936, 262_144]),
    parameters=st.sampled_from([10**5, 10**7, 10**9, 4 * 10**9, 7 * 10**10]),
    longest=st.integers(2, 4096),
)
def test_there_is_an_odd_and_an_even_prompt_within_the_cost(
    vocab: int, parameters: int, longest: int
) -> None:
    ids = list(range(longest + 64))
    passages = choose_passages(ids, vocab, parameters, longest)
    lengths = {passage.name: len(passage.token_ids) for passage in passages}
    assert lengths["first"] % 2 == 1
    assert lengths["second"] % 2 == 0
    assert all(0 < length <= longest for length in lengths.values())
    assert passages[0].token_ids != passages[1].token_ids[: lengths["first"]]
    if "longest" in lengths:
        assert lengths["longest"] == longest
    logits = 3 * 4 * vocab * sum(lengths.values())
    assert logits <= 2**27 + 3 * 4 * vocab * 4


def test_a_small_model_is_recorded_at_its_longest_and_a_large_one_is_not() -> None:
    ids = list(range(2000))
    assert len(choose_passages(ids, 2048, 6 * 10**6, 512)) == 3
    assert len(choose_passages(ids, 151_936, 6 * 10**8, 1024)) == 2


def test_recipes_round_as_they_say() -> None:
    plain = Recipe(linear="fp32", group_size=0, embedding="fp32", kv_cache="fp32")
    assert quantisation_of(plain) == FP32
    recipe = Recipe(linear="8da4w", group_size=64, embedding="8w", kv_cache="fp16")
    assert quantisation_of(recipe) == Quantisation(64, "8w", "fp16")
    mixed = Recipe(linear="fp32", group_size=0, embedding="4w", kv_cache="fp32")
    assert quantisation_of(mixed) == Quantisation(0, "4w", "fp32")
