"""What tests of real harnesses share: packages, and caches that outlive a test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.commands.build import BuildOptions, build
from mobilepack.pipeline.plan import Choices
from tests.provision import CACHE


@pytest.fixture(scope="session")
def provisioned() -> object:
    """Keep compilers, emulators and wheels in a cache that outlives this run of the tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MOBILEPACK_CACHE", str(CACHE / "mobilepack"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model in 8da4w with a short cache, which an emulator fills soon."""
    return _built(tmp_path_factory, Choices(max_seq_len=64, prefill_chunk=32))


@pytest.fixture(scope="session")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same in fp32, whose attention is an operator of the runner's own."""
    return _built(tmp_path_factory, Choices(linear="fp32", max_seq_len=64, prefill_chunk=32))


def _built(factory: pytest.TempPathFactory, choices: Choices) -> Path:
    return build(BuildOptions(out=factory.mktemp("package"), choices=choices))[0].folder
