"""Rows of a GGUF file, whatever the range; which file a path means; what the file says beside."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilepack.errors import UsageError
from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.gguf.file import GgufFile
from mobilepack.models.weights import open_model
from tests.matrix.references import transformers_model
from tests.models.gguf.cases import CASES
from tests.models.gguf.writing import write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small llama in Q4_K_M, whose queries and keys lie in pairs."""
    case = next(case for case in CASES if case.name == "llama-Q4_K_M")
    out = tmp_path_factory.mktemp("model")
    transformers_model(case.model_type, case.keys).save_pretrained(out / "original")
    return write(out / "original", out, case.arch, case.kinds, case.move).gguf


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.1.attn_k.weight", "output.weight"])
def test_rows_of_any_range_are_those_of_the_whole(model: Path, name: str) -> None:
    with GgufFile.open(model) as file:
        count = file.tensors[name].shape[0]
        whole = file.read_rows(name, 0, count)
        rng = np.random.default_rng(0)
        for start, stop in np.sort(rng.integers(0, count + 1, (40, 2)), axis=1).tolist():
            out = torch.empty(stop - start, whole.shape[1])
            assert file.read_rows(name, start, stop, out) is out
            assert torch.equal(out, whole[start:stop])
        with pytest.raises(ValueError, match="rows"):
            file.read_rows(name, 0, count + 1)
        with pytest.raises(ValueError, match="contiguous"):
            file.read_rows(name, 0, 2, torch.empty(3, whole.shape[1]))


def test_a_closed_file_is_not_read(model: Path) -> None:
    file = GgufFile.open(model)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read_rows("output.weight", 0, 1)


def test_a_folder_with_one_gguf_file_stands_for_it(model: Path, tmp_path: Path) -> None:
    shutil.copy(model, tmp_path / "only.gguf")
    with Checkpoint.open(tmp_path) as one, Checkpoint.open(tmp_path / "only.gguf") as other:
        assert one.config == other.config
        assert one.gguf
        assert one.place == tmp_path / "only.gguf"
        assert one.fingerprint == other.fingerprint
        assert one.licence.name == "apache-2.0"


def test_two_gguf_files_in_a_folder_are_refused_by_name(model: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(model, tmp_path / name)
    with pytest.raises(UsageError, match="cannot tell which") as caught:
        Checkpoint.open(tmp_path)
    assert "a.gguf, b.gguf" in caught.value.why
    assert str(tmp_path / "a.gguf") in caught.value.next


def test_a_file_is_known_by_its_first_bytes_too(model: Path, tmp_path: Path) -> None:
    shutil.copy(model, tmp_path / "blob")
    with Checkpoint.open(tmp_path / "blob") as found:
        assert found.gguf


def test_a_revision_of_a_file_is_refused(model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Checkpoint.open(model, revision="main")
    assert caught.value.code == "revision-of-folder"


def test_the_companions_are_written_once_and_without_a_cache_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path / "cache"))
    with Checkpoint.open(model) as first:
        written = (first.folder / "config.json").stat().st_mtime_ns
    with Checkpoint.open(model) as second:
        assert second.folder == first.folder
        assert (second.folder / "config.json").stat().st_mtime_ns == written
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path / "file"))
    with Checkpoint.open(model) as third:
        assert third.config == first.config
        shutil.rmtree(third.folder)


def test_another_content_under_the_same_name_is_another_model(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    shutil.copy(model, path)
    with Checkpoint.open(path) as one:
        before = one.fingerprint
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with Checkpoint.open(path) as other:
        assert other.fingerprint != before


def test_weights_beyond_the_end_of_a_cut_file_are_an_error(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(UsageError) as caught:
        open_model(path)
    assert caught.value.code == "truncated-weights"
