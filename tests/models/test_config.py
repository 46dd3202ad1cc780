from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.errors import MobilepackError, UsageError
from mobilepack.models.config import ConfigReader, parse_object, read_json
from mobilepack.models.families.registry import read_spec


def test_a_json_object_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": [1, null, "ü"]}')
    assert read_json(tmp_path / "config.json") == {"a": [1, None, "ü"]}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "Expecting value"),
        (b"[1]", "is a list"),
        (b"null", "is a null"),
        (b'{"a": 1, "a": 2}', "'a' appears twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' appears twice"),
        (b"{'a': 1}", "double quotes"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
    ],
)
def test_what_is_not_one_strict_object_is_refused(tmp_path: Path, text: bytes, cause: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(UsageError) as failure:
        read_json(path)
    assert failure.value.code == "invalid-json"
    assert str(path) in failure.value.what
    assert cause in failure.value.why


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude42"}') == {"a": "🙂"}


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as failure:
        read_json(tmp_path / "config.json")
    assert failure.value.code == "unreadable-file"


def test_every_problem_is_reported_at_once_with_file_key_and_value() -> None:
    reader = ConfigReader({"a": "x", "b": 0, "c": -1.5, "d": 1, "e": "silo", "f": [1, "2"]})
    reader.integer("a")
    reader.integer("b")
    reader.number("c")
    reader.flag("d", False)
    reader.choice("e", ["silu", "gelu"], "silu")
    reader.token_ids("f")
    reader.integer("g")
    with pytest.raises(UsageError) as failure:
        reader.finish()
    assert "config.json" in failure.value.what
    for part in (
        'a: is "x"; an integer is needed',
        "b: is 0; at least 1 is needed",
        "c: is -1.5; a number above 0 is needed",
        "d: is 1; true or false is needed",
        "e: is \"silo\"; did you mean 'silu'?",
        'f: is [1, "2"]; a token id or a list',
        "g: is missing; an integer is needed",
    ):
        assert part in failure.value.why


@pytest.mark.parametrize("value", [True, 1.0, "1", [1], 10**30, float("inf")])
def test_only_a_plain_integer_is_an_integer(value: Any) -> None:
    reader = ConfigReader({"n": value})
    reader.integer("n")
    assert len(reader.problems) == 1


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), 10**400])
def test_only_a_finite_number_is_a_number(value: Any) -> None:
    reader = ConfigReader({"n": value})
    reader.number("n")
    assert len(reader.problems) == 1


def test_a_misspelt_key_is_an_error_but_a_foreign_one_is_not() -> None:
    reader = ConfigReader({"num_key_value_head": 2, "transformers_version": "5"})
    reader.integer("num_key_value_heads", 4)
    with pytest.raises(UsageError, match="did you mean 'num_key_value_heads'"):
        reader.finish()


def test_a_nested_object_reports_its_full_key() -> None:
    reader = ConfigReader({"rope": {"factor": "x"}, "other": 3})
    child = reader.child("rope")
    assert child is not None
    child.number("factor")
    assert reader.child("other") is None
    assert reader.child("absent") is None
    assert [p.split(":")[0] for p in reader.problems] == ["rope.factor", "other"]


VALID = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rope_scaling": {"type": "linear", "factor": 2.0},
}
KEYS = [
    *VALID,
    *("head_dim", "eos_token_id", "bos_token_id", "hidden_act", "rope_theta", "rope_parameters"),
    *("sliding_window", "use_sliding_window", "layer_types", "max_window_layers", "auto_map"),
    *("tie_word_embeddings", "rms_norm_eps", "num_key_value_heads", "max_position_embeddings"),
]
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.integers(-2, 9)
    | st.floats()
    | st.sampled_from(["llama", "qwen2", "qwen3", "mistral", "yarn", "full_attention"])
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "factor", "rope_type", "rope_theta", "x"]), inner
        )
    ),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None)
@given(
    family=st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]),
    changes=st.dictionaries(st.sampled_from(KEYS), values, max_size=5),
    generation=st.dictionaries(st.sampled_from(["eos_token_id", "bos_token_id"]), values),
)
def test_arbitrary_configs_raise_nothing_but_our_errors(
    family: str, changes: dict[str, Any], generation: dict[str, Any]
) -> None:
    try:
        read_spec({**VALID, "model_type": family, **changes}, generation)
    except MobilepackError as err:
        f"{err.what}{err.why}{err.next}".encode(errors="surrogatepass")


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 200), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_json_raises_nothing_but_value_errors(place: int, byte: int, cut: bool) -> None:
    text = bytearray(json.dumps(VALID).encode())
    place %= len(text)
    text[place] = byte
    with contextlib.suppress(ValueError):
        assert isinstance(parse_object(bytes(text[:place] if cut else text)), dict)
