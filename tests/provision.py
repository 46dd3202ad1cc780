"""Parts from the package registries that some tests need: fetched once, checked, kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
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
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"packages-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            fresh = folder.with_suffix(".part")
            shutil.rmtree(fresh, ignore_errors=True)
            asked = ["--no-deps", "--require-hashes", "--only-binary=:all:"]
            command = [_uv(), "pip", "install", "-q", *asked, "--target", str(fresh)]
            subprocess.run([*command, "-r", str(requirements)], check=True, timeout=600)
            fresh.rename(folder)
    return folder


def _uv() -> str:
    own = ROOT / ".venv-tools" / "bin" / "uv"
    return str(own) if own.is_file() else "uv"
