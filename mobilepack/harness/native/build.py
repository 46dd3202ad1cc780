"""The native runner, compiled on demand and kept.

It is linked against the libraries of the executorch wheel, which need no torch: this machine's
wheel for this machine, the aarch64 wheel and Debian's cross compiler for 64-bit ARM Linux.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mobilepack.errors import BuildError, MissingError
from mobilepack.harness.provision.debian import Suite, unpacked
from mobilepack.harness.provision.folder import filled_once
from mobilepack.harness.provision.wheels import wheel_folder
from mobilepack.process import run

Machine = Literal["x86_64", "aarch64"]

RUNNER = "mobilepack_runner"
SOURCES = Path(__file__).parent / "src"
EXECUTORCH = "1.5.1"
# executorch-1.5.1-cp311-cp311-manylinux_2_28_aarch64.whl as PyPI publishes it; the libraries in it
# do not depend on the Python version.
_WHEEL_SHA256 = "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a"
_LIBRARIES = (
    "executorch",
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
    "executorch_backend_xnnpack",
    "executorch_threadpool",
)
LOADER = "system/ld.so"
"""The loader of the libraries in `system/`, for a device that has another C library or none."""

# What the runner and ExecuTorch's libraries (built for manylinux_2_28) name as needed: glibc's
# and GCC's. Android has neither.
_SYSTEM = (
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libstdc++.so.6"),
    "libgcc_s.so.1",
)
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
_CROSS_PACKAGES = ("g++-aarch64-linux-gnu", "nlohmann-json3-dev")
_JSON_PACKAGES = ("nlohmann-json3-dev",)
_JSON_HEADER = Path("nlohmann/json.hpp")
_COMPILE_S = 600.0


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What compiles for one machine.

    Attributes:
        machine: Whose programs it makes.
        compiler: Command and its fixed options.
        executorch: Folder with `include/` and `lib/` of ExecuTorch.
        headers: Folder with nlohmann/json.hpp.
        env: Added to the environment.
    """

    machine: Machine
    compiler: tuple[str, ...]
    executorch: Path
    headers: Path
    env: Mapping[str, str] = field(default_factory=dict)


def built_runner(machine: Machine) -> Path:
    """Return a folder with a runner, compiled at most once.

    ExecuTorch's libraries are in `lib/`, where the runner looks for them. C library, C++ library
    and their loader are in `system/`, for devices that have none: `LOADER --library-path
    system:lib RUNNER`.

    Raises:
        MissingError: No compiler, or a part cannot be fetched.
        BuildError: The compiler refused the sources.
    """
    version = importlib.metadata.version("executorch")
    if version != EXECUTORCH:
        raise MissingError(
            "executorch-version",
            "cannot build the native runner",
            why=f"it is written for executorch {EXECUTORCH}, installed is {version}",
            next=f"pip install executorch=={EXECUTORCH}",
        )
    key = (machine, EXECUTORCH, sources_digest(), LOADER, *_SYSTEM)
    sources = tuple(sorted(SOURCES.glob("*.cpp")))
    return filled_once("native", key, lambda new: compile_runner(new, toolchain(machine), sources))


def sources_digest() -> str:
    """Return the sha256 (hex, first 16 digits) of the runner's sources."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def toolchain(machine: Machine) -> Toolchain:
    """Return what compiles for a machine; fetches what is not there.

    Raises:
        MissingError: No compiler, or a part cannot be fetched.
    """
    if machine == platform.machine() and platform.system() == "Linux":
        return _own_toolchain(machine)
    if machine != "aarch64":
        raise MissingError(
            "no-cross-compiler",
            f"cannot build the native runner for {machine}",
            why=f"this is {platform.system()} on {platform.machine()}",
            next=f"use a Linux host of {machine}, or a 64-bit ARM device",
        )
    return _cross_toolchain()


def _own_toolchain(machine: Machine) -> Toolchain:
    compiler = next((found for name in ("g++", "clang++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise MissingError(
            "no-compiler",
            "cannot build the native runner",
            why="neither g++ nor clang++ is on PATH",
            next="apt install g++ (or your system's C++ compiler)",
        )
    return Toolchain(machine, (compiler,), _installed_executorch(), _json_headers())


def _installed_executorch() -> Path:
    spec = importlib.util.find_spec("executorch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise MissingError(
            "no-executorch",
            "cannot build the native runner",
            why="executorch is not installed",
            next=f"pip install executorch=={EXECUTORCH}",
        )
    return Path(folders[0])


def _json_headers() -> Path:
    places = [Path("/usr/include"), Path("/usr/local/include"), Path("/opt/homebrew/include")]
    found = next((place for place in places if (place / _JSON_HEADER).is_file()), None)
    return found or unpacked(Suite.of_this_machine(), _JSON_PACKAGES) / "usr/include"


def _cross_toolchain() -> Toolchain:
    root = unpacked(Suite.of_this_machine(), _CROSS_PACKAGES)
    wheel = wheel_folder(f"executorch=={EXECUTORCH}", _WHEEL_SHA256, "aarch64-manylinux_2_28")
    libraries = root / "usr/lib" / f"{platform.machine()}-linux-gnu"
    return Toolchain(
        "aarch64",
        (str(root / "usr/bin/aarch64-linux-gnu-g++"), f"--sysroot={root}"),
        wheel / "executorch",
        root / "usr/include",
        {"LD_LIBRARY_PATH": str(libraries)},
    )


def compile_runner(folder: Path, tools: Toolchain, sources: Sequence[Path]) -> None:
    """Compile and link a runner; the libraries go beside it, where its rpath looks.

    Raises:
        BuildError: The compiler refused the sources.
    """
    include = tools.executorch / "include"
    portable = include / "executorch/runtime/core/portable_type/c10"
    library = folder / "lib"
    library.mkdir()
    for name in _LIBRARIES:
        shutil.copy2(tools.executorch / "lib" / f"lib{name}.so", library)
    # The header goes alone: /usr/include of another machine would hide the compiler's own.
    headers = folder / ".include"
    shutil.copytree(tools.headers / _JSON_HEADER.parent, headers / _JSON_HEADER.parent)
    argv = (
        *tools.compiler,
        *("-std=c++17", "-O2", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL"),
        f'-DMOBILEPACK_EXECUTORCH_VERSION="{EXECUTORCH}"',
        f'-DMOBILEPACK_RUNNER_DIGEST="{sources_digest()}"',
        *("-isystem", str(include), "-isystem", str(portable), "-isystem", str(headers)),
        *("-I", str(SOURCES), *(str(path) for path in sources)),
        *("-o", str(folder / RUNNER), f"-L{library}", "-Wl,--no-as-needed"),
        *(f"-l{name}" for name in _LIBRARIES),
        *("-lpthread", "-Wl,-rpath,$ORIGIN/lib"),
    )
    done = run(argv, timeout_s=_COMPILE_S, env=os.environ | tools.env | {"LC_ALL": "C"})
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line or "Error" in line]
        raise BuildError(
            "native-runner",
            "cannot compile the native runner",
            why=f"{done.ending}: {'; '.join(errors[:3]) or done.stderr[-300:]}",
            next="report this with the compiler's version; mobilepack doctor prints it",
        )
    shutil.rmtree(headers)
    _add_system(folder / LOADER, tools)


def _add_system(loader: Path, tools: Toolchain) -> None:
    """Copy the loader and the libraries that the compiler links with beside it."""
    loader.parent.mkdir()
    for name in (_LOADERS[tools.machine], *_SYSTEM):
        argv = (*tools.compiler, f"-print-file-name={name}")
        done = run(argv, timeout_s=_COMPILE_S, env=os.environ | tools.env)
        found = Path(done.stdout.strip())
        if not found.is_absolute():  # the compiler repeats a name that it cannot find
            raise BuildError(
                "native-runner",
                f"cannot find {name} for the native runner",
                why=f"{tools.compiler[0]} knows no such library",
                next="report this with the compiler's version; mobilepack doctor prints it",
            )
        shutil.copy2(found, loader if name.startswith("ld-") else loader.parent / name)
