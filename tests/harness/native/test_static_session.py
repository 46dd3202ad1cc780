"""What the runner gives a program of the static form, byte by byte what Python gives it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mobilepack.harness.android.native_run import runner_command
from mobilepack.harness.native.build import RUNNER, SOURCES, compile_runner, toolchain
from mobilepack.harness.virtual.root import emulator_root
from tests.harness.parts import provisioned
from tests.harness.static_contract import Said, StaticContract

__all__ = ["provisioned"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """Return the command of static_session_main.cpp, on ARM64 an emulated one."""
    folder = tmp_path_factory.mktemp("static-session")
    own = [SOURCES / name for name in ("static_session.cpp", "static_form.cpp", "tensors.cpp")]
    main = Path(__file__).with_name("static_session_main.cpp")
    compile_runner(folder, toolchain(request.param), [*own, main])
    if request.param == "x86_64":
        return (str(folder / RUNNER),)
    qemu = str(emulator_root() / "usr/bin/qemu-aarch64-static")
    return (qemu, "-cpu", "cortex-a76", *runner_command(str(folder)))


@pytest.fixture
def said(program: tuple[str, ...], tmp_path: Path) -> Said:
    """Return what feeds calls to a form that a manifest's text describes."""

    def ask(
        manifest: str, calls: Sequence[tuple[int, Sequence[int]]]
    ) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "manifest.json"
        path.write_text(manifest)
        lines = "".join(f"{at} {' '.join(map(str, ids))}\n" for at, ids in calls)
        argv = [*program, path]
        return subprocess.run(
            argv, input=lines, capture_output=True, text=True, timeout=60, check=False
        )

    return ask


class TestRunner(StaticContract):
    """On this machine and emulated."""

    unknown = {"long": "int64"}  # noqa: RUF012 - read only
