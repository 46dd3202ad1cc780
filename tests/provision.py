"""Parts from the package registries that some tests need: fetched once, checked, kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("MOBILEPACK_TEST_CACHE") or Path.home() / ".cache" / "mobilepack-tests")
"""Outside the folder that tests use as the user's cache, so that a second run fetches nothing."""


def packages(requirements: Path) -> Path:
    """Return a folder with PyPI packages unpacked into it, as pinned by version and hash.

    Their code is not imported and their dependencies are not installed.

    Raises:
        subprocess.CalledProcessError: uv could not fetch them, or a hash is another.
    """
    return _kept("packages", requirements.read_bytes(), lambda fresh: _install(requirements, fresh))


def jars(pom: Path) -> Path:
    """Return a folder with the jars that a Maven project depends on, with their dependencies.

    Raises:
        subprocess.CalledProcessError: Maven could not fetch them, or a checksum is another.
    """
    return _kept("jars", pom.read_bytes(), lambda fresh: _resolve(pom, fresh))


def npm_package(name: str, version: str, sha256: str) -> Path:
    """Return a folder with an npm package unpacked into it; nothing of it runs.

    Raises:
        subprocess.CalledProcessError: npm could not fetch it.
    """
    key = f"{name} {version} {sha256}".encode()
    return _kept("npm", key, lambda fresh: _unpack(f"{name}@{version}", sha256, fresh))


def _kept(kind: str, key: bytes, fill: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256(key).hexdigest()[:16]
    folder = CACHE / f"{kind}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            fresh = folder.with_suffix(".part")
            shutil.rmtree(fresh, ignore_errors=True)
            fill(fresh)
            fresh.rename(folder)
    return folder


def _install(requirements: Path, folder: Path) -> None:
    asked = ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    command = [_uv(), "pip", "install", "-q", *asked, "--target", str(folder)]
    subprocess.run([*command, "-r", str(requirements)], check=True, timeout=600)


def _resolve(pom: Path, folder: Path) -> None:
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    asked = ["-B", "-q", "--strict-checksums", "-f", str(pom), f"-DoutputDirectory={folder}"]
    subprocess.run([_tool("mvn"), *asked, goal], check=True, timeout=600)


def _unpack(package: str, sha256: str, folder: Path) -> None:
    folder.mkdir()
    subprocess.run([_tool("npm"), "pack", "--silent", package], cwd=folder, check=True, timeout=600)
    (archive,) = folder.glob("*.tgz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == sha256, f"{package} is another"
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()


def _tool(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is not on PATH"
    return found


def _uv() -> str:
    own = ROOT / ".venv-tools" / "bin" / "uv"
    return str(own) if own.is_file() else "uv"
