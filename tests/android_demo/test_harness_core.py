"""The app's harness, compiled and run on a JVM: same plan, same result as Python and C++."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.android_demo.conftest import DEMO, Kotlin
from tests.harness.core_contract import CoreContract, Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(kotlin: Kotlin, core: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the toy model's program."""
    out = tmp_path_factory.mktemp("toy") / "toy.jar"
    sources = [DEMO / "harness-core/src/test/kotlin"]
    kotlin.compile(out, sources, [core, *kotlin.libraries])
    return out


@pytest.fixture
def obey(kotlin: Kotlin, core: Path, toy: Path, tmp_path: Path) -> Run:
    """Return a function that carries out a plan's bytes; its result is `result.json`."""

    def call(plan: bytes, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "plan.json").write_bytes(plan)
        files = (tmp_path / "plan.json", tmp_path / "result.json")
        return kotlin.run("mobilepack.harness.ToyKt", [toy, core], *files, *options)

    return call


class TestKotlin(CoreContract):
    """On a JVM."""

    conditions = frozenset({"load_average_before", "load_average_after", "peak_memory"})
    of_bad_literals = "a: unknown field"
