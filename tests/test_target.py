"""Every file in targets/ is a target, and a wrong file names all that is wrong with it."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from mobilepack.contract import manifest
from mobilepack.errors import ExitCode, UsageError
from mobilepack.target import (
    RecipeDefaults,
    load_target,
    read_target,
    target_names,
    targets_folder,
)

FILES = sorted((Path(__file__).parent.parent / "targets").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_file_is_a_target(path: Path) -> None:
    target = read_target(path)
    assert target.name == path.stem
    assert target.shape.prefill_chunk <= target.shape.max_seq_len
    recipe = target.recipe.model_dump()
    assert manifest.Recipe.model_validate(recipe).model_dump() == recipe


def test_shipped_names_are_the_stems() -> None:
    assert target_names() == tuple(sorted(path.stem for path in FILES))
    assert "xnnpack" in target_names()


def test_recipe_sets_are_those_of_the_manifest() -> None:
    for ours, theirs in (
        ("linear", manifest.LinearRecipe),
        ("embedding", manifest.EmbeddingRecipe),
        ("kv_cache", manifest.KvCacheRecipe),
    ):
        annotation = RecipeDefaults.model_fields[ours].annotation
        assert set(typing.get_args(annotation)) == set(typing.get_args(theirs))


def test_an_unknown_name_is_answered_with_the_near_miss() -> None:
    with pytest.raises(UsageError) as caught:
        load_target("xnpack")
    assert caught.value.why == "did you mean 'xnnpack'?"
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_path_is_a_target_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text((targets_folder() / "xnnpack.toml").read_text())
    assert load_target(str(mine)).name == "mine"


def _broken(tmp_path: Path, old: str, new: str) -> str:
    """Return why a copy of xnnpack.toml with one replacement is refused."""
    text = (targets_folder() / "xnnpack.toml").read_text()
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_target(path)
    assert str(path) in caught.value.what
    return caught.value.why


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("title =", "titel =", "titel: no such key; did you mean 'title'?"),
        ("linear =", "liner =", "recipe.liner: no such key; did you mean 'linear'?"),
        ('"8da4w"', '"8da8w"', "recipe.linear: '8da8w' is not allowed"),
        ("group_size = 32", "group_size = 48", "recipe.group_size: 48 is not allowed"),
        (
            "group_size = 32",
            "group_size = 0",
            "recipe: group_size must be 32, 64 or 128 for linear",
        ),
        ("prefill_chunk = 512", "prefill_chunk = 4096", "shape: prefill_chunk must be at most"),
        ("max_seq_len = 1024", 'max_seq_len = "1024"', "shape.max_seq_len: Input should be"),
        ("max_seq_len = 1024", "max_seq_len = 1", "shape.max_seq_len: Input should be greater"),
        ('backend = "xnnpack"', 'backend = "xnn"', "backend: 'xnn' is not allowed"),
        ('backend = "xnnpack"', 'backend = "qnn"', "soc_model belongs to backend = 'qnn'"),
        ("[recipe]", 'soc_model = "SM8650"\n[recipe]', "soc_model belongs to backend = 'qnn'"),
        ('"8da4w"\ngroup_size = 32', '"16a4w"\ngroup_size = 0', "linear must be 'fp32' or '8da4w'"),
        ("title =", 'name = "other"\ntitle =', "name: no such key"),
        ("title =", "title ==", "Invalid value"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    assert why in _broken(tmp_path, old, new)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("[recipe]\nlinear = 4\n")
    with pytest.raises(UsageError) as caught:
        read_target(path)
    for key in ("title", "backend", "recipe.linear", "recipe.embedding", "shape"):
        assert f"{key}: " in caught.value.why


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[recipe", b"\x00"])
def test_bytes_that_are_no_toml_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read the target file"):
        read_target(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_target(str(tmp_path / "absent.toml"))
