"""Make an environment per peer with uv, pinned, on demand."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import run_measured

_CACHE_VARIABLE = "MOBILEPACK_BENCH_CACHE"
_STAMP = "benchmark-requirements.json"
_INSTALL_LIMIT_S = 3600.0  # llama.cpp compiles for about 10 minutes on two cores


@dataclass(frozen=True, slots=True)
class Environment:
    """Pin what a peer needs.

    Attributes:
        name: Folder under the cache.
        requirements: Pinned requirements, nothing else is asked for by name.
        from_source: Packages that are compiled here and never taken as a wheel.
        build_settings: Given to the build backend of packages compiled here.
        needs_torch: Ask for the CPU build of torch.
    """

    name: str
    requirements: tuple[str, ...]
    from_source: tuple[str, ...] = ()
    build_settings: Mapping[str, str] = field(default_factory=dict)
    needs_torch: bool = False


class EnvironmentFailedError(Exception):
    """An environment could not be made; the message says why."""


def cache_folder() -> Path:
    """Return where environments, checkpoints and artefacts are kept."""
    chosen = os.environ.get(_CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "mobilepack" / "bench"


def ensure(environment: Environment | None) -> Path:
    """Return the interpreter of an environment, installing it first where needed.

    None stands for the environment this process runs in.

    Raises:
        EnvironmentFailedError: uv is missing or an installation failed.
    """
    if environment is None:
        return Path(sys.executable)
    folder = cache_folder() / environment.name
    python = folder / "bin" / "python"
    wanted = json.dumps([environment.requirements, dict(environment.build_settings)])
    stamp = folder / _STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"setting up {environment.name} in {folder}", file=sys.stderr)
    _uv("venv", "--quiet", "--clear", "--python", _python_version(), str(folder))
    _install(environment, python)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def installed_versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Ask an environment for the versions of some of its packages."""
    script = (
        "import importlib.metadata as m, json, sys\n"
        "have = {d.name.lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: have[n] for n in sys.argv[1:] if n in have}))"
    )
    done = run_measured([str(python), "-c", script, *names], limit_s=60)
    versions: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return versions


def _install(environment: Environment, python: Path) -> None:
    arguments = ["pip", "install", "--python", str(python)]
    for name in environment.from_source:
        arguments += ["--no-binary", name]
    for key, value in environment.build_settings.items():
        arguments += ["--config-setting", f"{key}={value}"]
    arguments += environment.requirements
    if not environment.needs_torch or "UV_FIND_LINKS" in os.environ:
        _uv(*arguments)
        return
    try:
        _uv(*arguments, "--torch-backend=cpu")
    except EnvironmentFailedError:
        _uv(*arguments)


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise EnvironmentFailedError("uv is not on PATH; next: python -m pip install uv")
    done = run_measured([uv, *arguments], limit_s=_INSTALL_LIMIT_S)
    if done.returncode != 0:
        raise EnvironmentFailedError(f"uv {' '.join(arguments)}: {done.explain_failure()}")


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
