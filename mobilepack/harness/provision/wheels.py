"""Wheels of another platform from PyPI, checked against pinned hashes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mobilepack.errors import MissingError
from mobilepack.harness.provision.folder import filled_once
from mobilepack.process import run

_TIMEOUT_S = 900.0


def wheel_folder(requirement: str, sha256: str, platform: str) -> Path:
    """Return a folder that a wheel is unpacked in, fetched at most once.

    Args:
        requirement: `name==version`.
        sha256: Of the wheel, hex.
        platform: uv's name of a platform, `aarch64-manylinux_2_28`.

    Raises:
        MissingError: There is no installer, or the wheel cannot be fetched.
    """
    key = (requirement, sha256, platform)
    return filled_once("wheels", key, lambda fresh: _fill(fresh, requirement, sha256, platform))


def _fill(folder: Path, requirement: str, sha256: str, platform: str) -> None:
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    asked = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet")
    place = ("--python-platform", platform, "--python-version", version, "--target", str(folder))
    done = run((_uv(), "pip", "install", *asked, *place, "-r", str(pinned)), timeout_s=_TIMEOUT_S)
    if done.returncode != 0:
        raise MissingError(
            "wheel-unavailable",
            f"cannot fetch {requirement} for {platform}",
            why=" ".join(done.stderr.split()) or done.ending,
            next="check the network; UV_FIND_LINKS or UV_INDEX_URL can name another place",
        )


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise MissingError(
            "no-uv",
            "cannot fetch wheels of another platform",
            why="uv is not installed beside mobilepack and not on PATH",
            next="pip install 'mobilepack[virtual]'",
        )
    return found
