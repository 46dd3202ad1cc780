"""Make `.venv` of this checkout: what `make env` runs, with nothing but Python 3.11 to 3.13.

Finds uv or installs it privately, creates the environment, installs the pinned dependencies and
mobilepack itself (editable). Does nothing when that was done before for the same files.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".venv-tools"
STAMP = VENV / ".mobilepack-stamp"
OLDEST_UV = (0, 8, 0)  # knows `uv venv --clear`, `--torch-backend` and `uv pip install --group`


def main() -> int:
    """Bring `.venv` up to date and return the exit code."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        fail(
            f"{sys.executable} is Python {sys.version.split()[0]}; 3.11, 3.12 or 3.13 is needed",
            "make PYTHON=/path/to/python3.11 env",
        )
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted and venv_python_works():
        return 0
    uv = find_uv() or install_uv()
    if not venv_python_works():
        say(f"creating {VENV.relative_to(ROOT)} with Python {sys.version.split()[0]}")
        run([uv, "venv", "--clear", "--quiet", "--python", sys.executable, str(VENV)])
    install(uv)
    STAMP.write_text(wanted)
    say("the environment is ready: .venv/bin/mobilepack --help")
    return 0


def fingerprint() -> str:
    """Return a hash of everything that decides what is installed, and where."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", ".ci/setup_env.py"):
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{ROOT}\n{sys.version}".encode())
    return digest.hexdigest()


def venv_python_works() -> bool:
    """Say whether `.venv` holds an interpreter of the running version that starts."""
    python = VENV / "bin" / "python"
    if not python.exists():
        return False
    code = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def find_uv() -> str | None:
    """Return a uv that starts and is new enough, or None."""
    candidates = (os.environ.get("UV"), shutil.which("uv"), str(TOOLS / "bin" / "uv"))
    for candidate in candidates:
        if candidate and uv_version(candidate) >= OLDEST_UV:
            return candidate
    return None


def uv_version(uv: str) -> tuple[int, ...]:
    """Return uv's version, or an empty tuple when it does not start."""
    try:
        done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in match.groups()) if match else ()


def install_uv() -> str:
    """Install uv into a folder of this checkout; no root, nothing outside is touched."""
    say(f"no uv of {'.'.join(map(str, OLDEST_UV))} or newer found: installing it into .venv-tools")
    say("downloads: uv (about 20 MB) from your Python package index")
    uv = TOOLS / "bin" / "uv"
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS], check=False).returncode
    if made == 0:
        run([str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
    else:  # Debian splits ensurepip off; pip itself may still be there
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--prefix", str(TOOLS)]
        if subprocess.run([*pip, "--ignore-installed", "uv"], check=False).returncode:
            fail(
                "this Python can make no virtual environment and has no pip",
                "install the python3-venv package of your system, or uv, and run make again",
            )
    found = next(iter(sorted(TOOLS.glob("**/bin/uv"))), uv)
    return str(found)


def install(uv: str) -> None:
    """Install the pinned dependencies and mobilepack itself."""
    base = [uv, "pip", "install", "--python", str(VENV / "bin" / "python")]
    base += ["--constraint", "constraints.txt", "--editable", ".", "--group", "dev"]
    if find_links_hold_torch():
        say("downloads: what uv's cache lacks; torch comes from UV_FIND_LINKS")
        run(base)
        return
    say("downloads: the CPU build of torch (about 190 MB) from PyTorch's own index, and about")
    say("250 MB of other wheels from your Python package index; what uv has cached is not repeated")
    if subprocess.run([*base, "--torch-backend=cpu"], cwd=ROOT, check=False).returncode == 0:
        return
    say("the CPU build of torch cannot be had; taking the plain one from your package index.")
    say("on Linux x86-64 that build brings CUDA libraries: about 2.6 GB to download")
    run(base)


def find_links_hold_torch() -> bool:
    """Say whether UV_FIND_LINKS offers torch; an address that is no folder is trusted to."""
    places = re.split(r"[,\s]+", os.environ.get("UV_FIND_LINKS", "").strip())
    return any(
        any(Path(place).glob("torch-*.whl")) if Path(place).is_dir() else "://" in place
        for place in places
        if place
    )


def run(command: list[str]) -> None:
    """Run a command in the checkout; its failure ends this program with a message."""
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        fail(
            f"`{' '.join(command[:4])} …` ended with exit code {done.returncode}",
            "read the message above it, and run `make env` again",
        )


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"env: {message}", file=sys.stderr, flush=True)


def fail(why: str, what_next: str) -> NoReturn:
    """Print what is wrong and what to do, and exit with 5: something needed is missing."""
    print(
        f"error[environment]: the environment could not be made\n  why: {why}\n  next: {what_next}",
        file=sys.stderr,
    )
    sys.exit(5)


if __name__ == "__main__":
    sys.exit(main())
