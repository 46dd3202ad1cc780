"""Tiny checkpoints, made once per test run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.checkpoints import make_checkpoint

Made = Callable[..., Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return `make_checkpoint` without the folder; equal arguments share one. Do not modify."""
    cache: dict[str, Path] = {}

    def make(family: str = "llama", **options: Any) -> Path:
        key = repr((family, sorted(options.items())))
        if key not in cache:
            cache[key] = make_checkpoint(tmp_path_factory.mktemp(family), family, **options)
        return cache[key]

    return make


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """Like `made`, but returns a copy that the test may damage."""

    def copy(family: str = "llama", **options: Any) -> Path:
        return Path(shutil.copytree(made(family, **options), tmp_path / "checkpoint"))

    return copy
