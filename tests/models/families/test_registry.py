from __future__ import annotations

from typing import Any

import pytest

from mobilepack.errors import UsageError
from mobilepack.models.config import JsonObject
from mobilepack.models.families import llama, qwen2
from mobilepack.models.families.registry import (
    BUILT_IN,
    all_families,
    family_of,
    read_spec,
    register,
)
from tests.models.families.test_families import MINIMAL


def refusal(config: JsonObject) -> UsageError:
    with pytest.raises(UsageError) as failure:
        family_of(config, "here/config.json")
    return failure.value


def test_the_four_families_are_found_by_their_model_type() -> None:
    assert {"llama", "mistral", "qwen2", "qwen3"} <= set(all_families())
    for name in BUILT_IN:
        assert name in family_of({"model_type": name}).model_types


def test_an_unknown_family_lists_what_is_supported_and_the_near_miss() -> None:
    error = refusal({"model_type": "qwen4"})
    assert error.code == "unsupported-family"
    assert '"qwen4"' in error.what
    assert "here/config.json" in error.why
    assert "supported: " + ", ".join(sorted(all_families())) in error.why
    assert "'qwen3'" in error.next


@pytest.mark.parametrize("value", [None, 3, ["llama"], {}])
def test_a_model_type_that_is_no_name_is_refused(value: Any) -> None:
    assert refusal({"model_type": value}).code == "unsupported-family"
    assert refusal({}).code == "unsupported-family"


def test_a_model_that_brings_its_own_code_is_refused_and_told_why() -> None:
    error = refusal({"model_type": "phi-msft", "auto_map": {"AutoModel": "modeling.X"}})
    assert error.code == "remote-code"
    assert "never runs such code" in error.why


def test_a_known_architecture_is_used_even_if_the_checkpoint_brings_code() -> None:
    assert family_of({"model_type": "llama", "auto_map": {}}) is llama.FAMILY


def test_two_families_may_not_read_the_same_model_type() -> None:
    with pytest.raises(UsageError, match="both one and another") as failure:
        register([("one", llama.FAMILY), ("two", qwen2.FAMILY), ("another", llama.FAMILY)])
    assert failure.value.code == "duplicate-family"


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 2}, {}, (2,)),
        ({"eos_token_id": [2, 5]}, {"eos_token_id": [7, 5]}, (2, 5, 7)),
        ({"eos_token_id": None}, {"eos_token_id": 7}, (7,)),
        ({}, {"eos_token_id": 7}, (7,)),
        ({}, {}, (2,)),
        ({"eos_token_id": None}, {}, ()),
    ],
)
def test_end_ids_are_joined_from_both_configs(
    config: dict[str, Any], generation: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert read_spec({**MINIMAL, **config}, generation).eos_ids == expected


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"bos_token_id": 3}, {"bos_token_id": 4}, 3),
        ({"bos_token_id": None}, {"bos_token_id": 4}, None),
        ({}, {"bos_token_id": 4}, 4),
        ({}, {}, 1),
    ],
)
def test_the_first_id_is_the_config_s_and_may_be_absent(
    config: dict[str, Any], generation: dict[str, Any], expected: int | None
) -> None:
    assert read_spec({**MINIMAL, **config}, generation).bos_id == expected


def test_a_broken_generation_config_is_named() -> None:
    with pytest.raises(UsageError, match="eos_token_id") as failure:
        read_spec(MINIMAL, {"eos_token_id": "</s>"})
    assert "generation_config.json" in failure.value.what
