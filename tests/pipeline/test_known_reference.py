"""References of eager fp32 that are kept between builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilepack.cache import VARIABLE
from mobilepack.commands.build import BuildOptions, Built, build
from mobilepack.contract.manifest import ModelIdentity
from mobilepack.contract.reference import Reference
from mobilepack.pipeline import known_reference
from mobilepack.pipeline.known_reference import ReferenceKey, find, keep, key_of
from mobilepack.pipeline.plan import Choices
from tests.packages import toy_reference

MODEL = ModelIdentity(source="x", family="llama", fingerprint="f")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / known_reference.FOLDER


@pytest.fixture
def reference() -> Reference:
    return toy_reference(quantised=True)


def key_for(reference: Reference, **changes: object) -> ReferenceKey:
    sequences = [sequence.token_ids for sequence in reference.index.sequences]
    return key_of(MODEL, 64, sequences).model_copy(update=changes)


def test_what_was_kept_is_found_by_the_same_key_alone(reference: Reference) -> None:
    key = key_for(reference)
    assert find(key) is None
    keep(key, reference)
    found = find(key)
    assert found is not None
    for name in ("sampled", "top_ids", "top_logits", "logsumexp", "next_logit"):
        kept = getattr(reference.rows["fp32"], name)
        assert np.array_equal(getattr(found, name), kept, equal_nan=name == "next_logit")
    for change in ({"fingerprint": "g"}, {"max_seq_len": 65}, {"versions": ("2", "1")}):
        assert find(key_for(reference, **change)) is None


@pytest.mark.parametrize("name", ["reference.json", "reference.safetensors"])
def test_a_damaged_entry_is_as_good_as_none(reference: Reference, folder: Path, name: str) -> None:
    keep(key_for(reference), reference)
    (entry,) = folder.iterdir()
    (entry / name).write_bytes((entry / name).read_bytes()[:-20])
    assert find(key_for(reference)) is None


def test_old_entries_go(
    reference: Reference, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_reference, "KEEP", 2)
    for length in (64, 65, 66):
        keep(key_for(reference, max_seq_len=length), reference)
    assert len(list(folder.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_left_alone(reference: Reference, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.touch()
    keep(key_for(reference), reference)
    assert find(key_for(reference)) is None


def one(model: Path, out: Path, embedding: str) -> Built:
    choices = Choices(embedding=embedding, max_seq_len=32, prefill_chunk=8)
    return build(BuildOptions(str(model), out=out, choices=choices))[0]


@pytest.mark.slow
def test_another_recipe_takes_the_fp32_half_from_the_cache(
    checkpoint: Path, tmp_path: Path, folder: Path
) -> None:
    fresh = one(checkpoint, tmp_path / "fresh", "4w").folder / "reference" / "reference.safetensors"
    expected = fresh.read_bytes()
    for entry in folder.iterdir():  # another recipe leaves the same fp32 rows
        (entry / "reference.safetensors").unlink()
    one(checkpoint, tmp_path / "other", "8w")
    again = one(checkpoint, tmp_path / "again", "4w").folder / "reference" / "reference.safetensors"
    assert again.read_bytes() == expected
