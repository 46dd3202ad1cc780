"""A tiny checkpoint, a process that builds it, and a package that nothing disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.checkpoints import make_checkpoint
from tests.pipeline.build_server import BuildServer, Order, Outcome

CHOICES = {"max_seq_len": 32, "prefill_chunk": 8}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny qwen2 checkpoint: biases, a tied head."""
    return make_checkpoint(tmp_path_factory.mktemp("pipeline") / "qwen2", "qwen2")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildServer]:
    """Return the process that forks builds."""
    with BuildServer(tmp_path_factory.mktemp("outcomes")) as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(
    server: BuildServer, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """Return a package built in one go, and what happened while it was built."""
    out = tmp_path_factory.mktemp("undisturbed")
    outcome = server.build(Order(str(checkpoint), str(out), CHOICES))
    assert not outcome.error, outcome
    return out / "xnnpack", outcome
