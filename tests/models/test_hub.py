from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilepack.errors import MissingError, UsageError
from mobilepack.models import hub
from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.weights import open_model
from tests.models.checkpoints import edit_json
from tests.models.conftest import Made
from tests.models.fake_hub import COMMIT, FakeHub

REPO = "someone/tiny"


@pytest.fixture
def served(copied: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    folder = copied()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "consolidated.safetensors").write_bytes(b"a second copy")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    with FakeHub(REPO, folder) as fake:
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield fake


def test_a_hub_checkpoint_is_fetched_without_pickles_and_second_copies(served: FakeHub) -> None:
    model = open_model(REPO)
    assert model.checkpoint.revision == COMMIT
    assert model.checkpoint.licence.name == "mit"
    model.close()
    assert set(served.downloads) == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "model.safetensors",
    }


def test_what_was_fetched_once_opens_offline(served: FakeHub) -> None:
    open_model(REPO).close()
    served.status = 500
    with Checkpoint.open(REPO, offline=True) as checkpoint:
        assert checkpoint.revision == COMMIT


def test_weights_are_not_downloaded_for_a_model_that_cannot_be_built(served: FakeHub) -> None:
    edit_json(served.folder / "config.json", model_type="mamba")
    with pytest.raises(UsageError) as failure:
        open_model(REPO)
    assert failure.value.code == "unsupported-family"
    assert "model.safetensors" not in served.downloads


def test_a_partial_cache_is_missing_offline_not_a_broken_checkpoint(served: FakeHub) -> None:
    edit_json(served.folder / "config.json", model_type="mamba")
    with pytest.raises(UsageError):
        open_model(REPO)
    with pytest.raises(MissingError) as failure:
        Checkpoint.open(REPO, offline=True)
    assert failure.value.code == "hub-not-cached"


@pytest.mark.parametrize(
    ("status", "error", "code", "step"),
    [
        (404, "RepoNotFound", "hub-not-found", "check the name"),
        (403, "GatedRepo", "hub-gated", "accept the terms"),
        (401, "RepoNotFound", "hub-not-found", "hf auth login"),
    ],
)
def test_what_the_hub_answers_becomes_one_clear_error(
    served: FakeHub, status: int, error: str, code: str, step: str
) -> None:
    served.status, served.error = status, error
    with pytest.raises(MissingError) as failure:
        Checkpoint.open(REPO)
    assert failure.value.code == code
    assert step in failure.value.next
    assert "\n" not in failure.value.why


def test_an_unknown_revision_is_named(served: FakeHub) -> None:
    with pytest.raises(MissingError) as failure:
        Checkpoint.open(REPO, revision="v9")
    assert failure.value.code == "hub-no-revision"
    assert "'v9'" in failure.value.next


def test_a_hub_that_cannot_be_reached_is_missing(
    served: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingError) as failure:
        Checkpoint.open(REPO)
    assert failure.value.code == "hub-unreachable"


def test_the_offline_switch_of_the_library_is_named(
    served: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError) as failure:
        Checkpoint.open(REPO)
    assert failure.value.code == "hub-not-cached"
    assert "HF_HUB_OFFLINE" in failure.value.next


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Qwen/Qwen3-0.6B", True),
        ("a/b", True),
        ("gpt2", False),
        ("./a/b", False),
        ("a/b/c", False),
        ("../a", False),
        ("/a/b", False),
        ("a/", False),
        ("a b/c", False),
    ],
)
def test_only_owner_slash_name_is_a_hub_id(text: str, answer: bool) -> None:
    assert hub.is_hub_id(text) is answer


def test_an_id_that_the_hub_library_refuses_is_a_usage_error(served: Any) -> None:
    with pytest.raises(UsageError) as failure:
        Checkpoint.open("a--b/c..d")
    assert failure.value.code == "invalid-hub-id"
