"""An app bundle whose program is the Swift harness on the real ExecuTorch, for this machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import cast

from mobilepack.harness.native.build import (
    EXECUTORCH,
    RUNNER,
    SOURCES,
    Machine,
    compile_runner,
    sources_digest,
    toolchain,
)
from mobilepack.harness.provision.folder import filled_once
from mobilepack.testing.apple.install import app_bundle
from mobilepack.testing.swift import Swift, built_stand_in

_SERVER = Path(__file__).with_name("step_server.cpp")


def built_step_server() -> Path:
    """Return the program that runs an ExecuTorch program call by call, compiled at most once.

    It is the native runner with another `main`: the same loading, kernels and state.

    Raises:
        MissingError: No compiler, or a part cannot be fetched.
        BuildError: The compiler refused the sources.
    """
    machine = cast("Machine", platform.machine())
    sources = [path for path in sorted(SOURCES.glob("*.cpp")) if path.name != "main.cpp"]
    key = (machine, EXECUTORCH, sources_digest(), _SERVER.read_text("utf-8"))

    def fill(folder: Path) -> None:
        compile_runner(folder, toolchain(machine), [*sources, _SERVER])

    return filled_once("step-server", key, fill) / RUNNER


def real_app(folder: Path, tools: Swift) -> Path:
    """Make a bundle that carries out plans with HarnessCore and ExecuTorch.

    Args:
        folder: The bundle goes below it.
        tools: Compiles and starts what is Swift.

    Raises:
        MissingError: A part cannot be fetched.
        BuildError: A part cannot be compiled.
    """
    server = {"MOBILEPACK_STEP_SERVER": str(built_step_server())}
    return app_bundle(folder, tools.command(built_stand_in(tools)), server)
