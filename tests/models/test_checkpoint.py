from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mobilepack.errors import MissingError, MobilepackError, UsageError
from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.weights import open_model
from tests.models.checkpoints import edit_json
from tests.models.conftest import Made

INDEX = "model.safetensors.index.json"


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def refusal(source: Path | str, **options: Any) -> UsageError:
    with pytest.raises(UsageError) as failure:
        Checkpoint.open(source, **options)
    return failure.value


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_tensor_is_read_as_float32(made: Made, shards: int, dtype: str) -> None:
    folder = made(shards=shards, dtype=dtype)
    tensors = all_tensors(folder)
    with Checkpoint.open(folder) as checkpoint:
        assert set(checkpoint.keys()) == set(tensors)
        assert checkpoint.nbytes == sum(t.nbytes for t in tensors.values())
        for key, tensor in tensors.items():
            assert checkpoint.shape(key) == tuple(tensor.shape)
            assert torch.equal(checkpoint.rows(key, 0, len(tensor)), tensor.float())
    assert len(list(folder.glob("*.safetensors"))) >= shards
    assert checkpoint.config["model_type"] == "llama"
    assert checkpoint.generation_config["eos_token_id"] == 2
    assert checkpoint.revision is None


def test_the_fingerprint_follows_config_tokenizer_and_weights(copied: Made) -> None:
    folder = copied(shards=3)

    def fingerprint() -> str:
        with Checkpoint.open(folder) as checkpoint:
            return checkpoint.fingerprint

    first = fingerprint()
    (folder / "notes.txt").write_text("does not matter")
    assert fingerprint() == first
    seen = {first}
    edit_json(folder / "config.json", rms_norm_eps=1e-5)
    seen.add(fingerprint())
    edit_json(folder / "tokenizer_config.json", add_bos_token=True)
    seen.add(fingerprint())
    shard = next(folder.glob("*.safetensors"))
    os.utime(shard, ns=(1, 1))
    seen.add(fingerprint())
    assert len(seen) == 4


def test_the_licence_is_read_from_the_readme_or_a_licence_file(copied: Made) -> None:
    folder = copied()
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.licence.name is None
    (folder / "LICENSE").write_text("\n   Apache License\n   Version 2.0\n")
    (folder / "NOTICE").write_text("Somebody's notice")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.licence.name == "Apache License"
        assert checkpoint.licence.files == ("LICENSE", "NOTICE")
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# Model\n")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.licence.name == "apache-2.0"


def test_a_source_that_is_no_folder_says_what_it_may_be(tmp_path: Path) -> None:
    error = refusal(tmp_path / "absent")
    assert error.code == "no-such-checkpoint"
    assert "hub id" in error.next


def test_a_weight_file_given_for_its_folder_is_pointed_out(made: Made) -> None:
    folder = made()
    error = refusal(folder / "model.safetensors")
    assert error.code == "not-a-folder"
    assert str(folder) in error.next


def test_a_revision_of_a_local_folder_is_refused(made: Made) -> None:
    assert refusal(made(), revision="main").code == "revision-of-folder"


FOLDERS: dict[str, tuple[dict[str, str], str, str]] = {
    "empty": ({}, "no-config", "no config.json"),
    "Meta's format": (
        {"params.json": "{}", "consolidated.00.pth": ""},
        "no-config",
        "own format",
    ),
    "gguf only": ({"model-Q4_0.gguf": ""}, "truncated-weights", "0 bytes"),
    "pickle without config": ({"weights.pt": ""}, "pickle-refused", "run any code"),
    "adapter": ({"adapter_config.json": "{}"}, "adapter", "another checkpoint"),
    "adapter with config": (
        {"adapter_config.json": "{}", "config.json": "{}"},
        "adapter",
        "another checkpoint",
    ),
    "pytorch_model.bin": (
        {"config.json": "{}", "pytorch_model.bin": ""},
        "pickle-refused",
        "run any code",
    ),
    "sharded pickle": (
        {"config.json": "{}", "pytorch_model-00001-of-00002.bin": ""},
        "pickle-refused",
        "run any code",
    ),
    "consolidated": (
        {"config.json": "{}", "consolidated.00.pth": ""},
        "pickle-refused",
        "run any code",
    ),
    "gguf with config": ({"config.json": "{}", "a.gguf": ""}, "no-weights", "a.gguf"),
    "no weights": ({"config.json": "{}"}, "no-weights", "neither"),
    "only training arguments": (
        {"config.json": "{}", "training_args.bin": ""},
        "no-weights",
        "neither",
    ),
    "another name": (
        {"config.json": "{}", "weights.safetensors": ""},
        "unnamed-weights",
        "weights.safetensors",
    ),
    "config is no JSON": ({"config.json": "{"}, "invalid-json", "property name"),
    "index without a map": ({"config.json": "{}", INDEX: "{}"}, "invalid-index", "weight_map"),
    "index leads outside": (
        {"config.json": "{}", INDEX: '{"weight_map": {"a": "../x.safetensors"}}'},
        "invalid-index",
        "not a plain file name",
    ),
    "index leads to a pickle": (
        {"config.json": "{}", INDEX: '{"weight_map": {"a": "x.bin"}}'},
        "invalid-index",
        "not a plain file name",
    ),
    "shards missing": (
        {"config.json": "{}", INDEX: '{"weight_map": {"a": "x.safetensors"}}'},
        "missing-shard",
        "x.safetensors",
    ),
    "gptq": (
        {"config.json": '{"quantization_config": {"quant_method": "gptq"}}'},
        "quantised-checkpoint",
        '"gptq"',
    ),
    "bitsandbytes without a method": (
        {"config.json": '{"quantization_config": {"load_in_4bit": true}}'},
        "quantised-checkpoint",
        "original checkpoint",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_cannot_be_built_is_refused_with_the_reason(
    tmp_path: Path, case: str
) -> None:
    files, code, part = FOLDERS[case]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    error = refusal(tmp_path)
    assert error.code == code
    assert part in f"{error.why} {error.next}"
    assert error.next


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    error = refusal(tmp_path)
    assert "pytorch_model.bin" in error.what
    assert "save_pretrained" in error.next
    assert refusal(tmp_path / "pytorch_model.bin").code == "pickle-refused"


def test_safetensors_beside_a_pickle_are_used(copied: Made) -> None:
    folder = copied()
    (folder / "pytorch_model.bin").write_bytes(b"not opened")
    Checkpoint.open(folder).close()


def test_a_truncated_shard_is_named(copied: Made) -> None:
    folder = copied(shards=3)
    shard = sorted(folder.glob("*.safetensors"))[1]
    os.truncate(shard, shard.stat().st_size // 2)
    error = refusal(folder)
    assert error.code == "truncated-weights"
    assert shard.name in error.what


def test_a_key_in_the_wrong_shard_is_an_error(copied: Made) -> None:
    folder = copied(shards=3)
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    key, shard = "model.norm.weight", index["model.norm.weight"]
    assert list(index.values()).count(shard) > 1
    other = next(name for name in index.values() if name != shard)
    edit_json(folder / INDEX, weight_map={**index, key: other, "ghost.weight": other})
    error = refusal(folder)
    assert error.code == "invalid-index"
    assert f"{key!r} is in {shard}" in error.why
    assert f"'ghost.weight' is not in {other}" in error.why


def test_a_key_in_two_shards_is_an_error(copied: Made) -> None:
    folder = copied(shards=3)
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    key, shard = next(iter(index.items()))
    other = next(name for name in index.values() if name != shard)
    save_file({**load_file(folder / other), key: torch.zeros(1)}, folder / other)
    assert f"{key!r} is in {other}" in refusal(folder).why


def test_damaged_folders_raise_nothing_but_our_errors(copied: Made) -> None:
    folder = copied(shards=3)
    names = ["config.json", "generation_config.json", INDEX]
    originals = {name: (folder / name).read_bytes() for name in names}

    @settings(max_examples=80, deadline=None)
    @given(
        name=st.sampled_from(names),
        place=st.floats(0, 1),
        new=st.binary(max_size=4),
        cut=st.booleans(),
    )
    def check(name: str, place: float, new: bytes, cut: bool) -> None:
        for other, raw in originals.items():
            (folder / other).write_bytes(raw)
        raw = originals[name]
        start = int(place * len(raw))
        rest = b"" if cut else raw[start + len(new) :]
        (folder / name).write_bytes(raw[:start] + new + rest)
        with contextlib.suppress(MobilepackError):
            open_model(folder).close()

    check()


def test_the_config_is_judged_before_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x"}')

    def check(config: Any) -> None:
        raise UsageError("mine", config["model_type"], why="", next="")

    assert refusal(tmp_path, check=check).code == "mine"


class TestHub:
    """The hub through its own cache, without a network."""

    @pytest.fixture
    def cache(self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Lay a checkpoint out as huggingface_hub caches it."""
        import huggingface_hub.constants

        root = tmp_path / "hub" / "models--someone--tiny"
        commit = "0123456789abcdef0123456789abcdef01234567"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(commit)
        shutil.copytree(made(), root / "snapshots" / commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return root / "snapshots" / commit

    def test_a_cached_checkpoint_opens_offline_with_its_commit(self, cache: Path) -> None:
        with Checkpoint.open("someone/tiny", offline=True) as checkpoint:
            assert checkpoint.folder == cache
            assert checkpoint.revision == cache.name
            assert checkpoint.source == "someone/tiny"

    def test_a_checkpoint_that_is_not_cached_is_missing(self, cache: Path) -> None:
        with pytest.raises(MissingError) as failure:
            Checkpoint.open("someone/other", offline=True)
        assert failure.value.code == "hub-not-cached"
        assert "without --offline" in failure.value.next
        with pytest.raises(MissingError):
            Checkpoint.open("someone/tiny", revision="v2", offline=True)

    def test_a_folder_wins_over_a_hub_id(
        self, cache: Path, made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(made(), tmp_path / "someone" / "tiny")
        with Checkpoint.open("someone/tiny", offline=True) as checkpoint:
            assert checkpoint.revision is None
