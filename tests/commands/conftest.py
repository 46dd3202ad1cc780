"""Tiny checkpoints and packages for the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny llama checkpoint with a separate head."""
    return make_checkpoint(tmp_path_factory.mktemp("plain") / "llama")


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny qwen3 checkpoint in bf16 shards, with a tied head."""
    folder = tmp_path_factory.mktemp("tied") / "qwen3"
    return make_checkpoint(folder, "qwen3", dtype="bfloat16", shards=2, tie_word_embeddings=True)
