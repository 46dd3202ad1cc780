"""The runner's CMake project, for those who build it themselves.

There is no NDK here. In its place stands a toolchain file that wants what the NDK's wants, looks
for packages as the NDK's does (below its own root alone), and names Debian's compiler for 64-bit
ARM: the preset is real, sources and link line are, the C library is glibc instead of bionic.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.native.build import SOURCES, Toolchain, toolchain
from mobilepack.harness.native.local import NativeHarness
from mobilepack.harness.virtual.root import emulator_root
from tests.harness.parts import fp32, provisioned

__all__ = ["fp32", "provisioned"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
PLAN = RunPlan(
    max_seq_len=64,
    prefill_chunk=32,
    sample_ids=tuple(range(0, 2048, 64)),
    threads=1,
    items=(Teacher(name="t", token_ids=tuple(range(1, 9)), calls=(4, 1, 1, 1, 1)),),
)
STAND_IN = """
if(NOT ANDROID_ABI STREQUAL "arm64-v8a" OR NOT ANDROID_STL STREQUAL "c++_shared")
  message(FATAL_ERROR "another Android is asked for: ${{ANDROID_ABI}}, ${{ANDROID_STL}}")
endif()
if(NOT ANDROID_PLATFORM STREQUAL "android-28")
  message(FATAL_ERROR "another level is asked for: ${{ANDROID_PLATFORM}}")
endif()
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_ABI ANDROID_STL ANDROID_PLATFORM)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER "{compiler}")
set(CMAKE_SYSROOT "{root}")
set(CMAKE_FIND_ROOT_PATH "{ndk}")
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
"""


def _root(tools: Toolchain) -> Path:
    return Path(tools.compiler[0]).parents[2]


@pytest.fixture(scope="module")
def tools() -> Toolchain:
    if shutil.which("cmake") is None:
        pytest.skip("not on PATH: cmake")
    return toolchain("aarch64")


@pytest.fixture(scope="module")
def json_package(tools: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return nlohmann_json's CMake package with its headers and nobody else's."""
    prefix, usr = tmp_path_factory.mktemp("json"), _root(tools) / "usr"
    for path in ("include/nlohmann", "share/cmake/nlohmann_json"):
        shutil.copytree(usr / path, prefix / path)
    return prefix / "share/cmake/nlohmann_json"


def _configured(
    folder: Path, preset: str, executorch: Path, json_package: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Configure a copy of the project, without optimisation: it is compiled sooner."""
    shutil.copytree(SOURCES.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    given = [f"-DEXECUTORCH_ROOT={executorch}", f"-Dnlohmann_json_DIR={json_package}"]
    argv = ["cmake", "--preset", preset, *given, "-DCMAKE_BUILD_TYPE=Debug", "-Werror=dev"]
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_android_preset_makes_a_runner_that_computes_what_ours_does(
    tools: Toolchain, json_package: Path, fp32: Path, tmp_path: Path
) -> None:
    ndk, project = tmp_path / "ndk", tmp_path / "native"
    file = ndk / "build/cmake/android.toolchain.cmake"
    file.parent.mkdir(parents=True)
    named = {"compiler": tools.compiler[0], "root": _root(tools), "ndk": ndk}
    file.write_text(STAND_IN.format(**named))
    env = os.environ | tools.env | {"ANDROID_NDK": str(ndk)}
    done = _configured(project, "android-arm64", tools.executorch, json_package, env)
    assert done.returncode == 0, done.stderr
    build = project / "build/android-arm64"
    argv = ["cmake", "--build", str(build)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr

    found = _emulated(build / "mobilepack_runner", tools, fp32, tmp_path)
    expected = NativeHarness().run(fp32, PLAN, log=tmp_path / "log")
    a, b = (np.array([row.sampled for row in one.rows]) for one in (found, expected))
    assert np.sqrt(((a - b) ** 2).mean()) <= 1e-5 * b.std()  # the ladder's limit for fp32


def _emulated(runner: Path, tools: Toolchain, package: Path, folder: Path) -> RunResult:
    plan, result = folder / "plan.json", folder / "result.json"
    plan.write_text(PLAN.to_json())
    qemu = (str(emulator_root() / "usr/bin/qemu-aarch64-static"), "-cpu", "cortex-a76")
    where = ("-L", str(_root(tools) / "usr/aarch64-linux-gnu"))
    libraries = ("-E", f"LD_LIBRARY_PATH={tools.executorch / 'lib'}")
    argv = (*qemu, *where, *libraries, str(runner), str(package), str(plan), str(result))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return RunResult.read(result)


def test_this_machine_s_preset_is_configured(
    tools: Toolchain, json_package: Path, tmp_path: Path
) -> None:
    own = toolchain("x86_64").executorch
    done = _configured(tmp_path / "native", "linux", own, json_package, dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_a_preset_without_executorch_says_what_is_missing(
    tools: Toolchain, json_package: Path, tmp_path: Path
) -> None:
    done = _configured(tmp_path / "native", "linux", tmp_path, json_package, dict(os.environ))
    assert done.returncode != 0
    assert "-DEXECUTORCH_ROOT=" in done.stderr
