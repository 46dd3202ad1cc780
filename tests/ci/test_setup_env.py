"""`make env` with a uv that only writes down how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE_UV = """#!{python}
import os, pathlib, sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("uv {version}")
    sys.exit(0)
with open({log!r}, "a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments[0] == "venv":
    python = pathlib.Path(arguments[-1]) / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.symlink_to({python!r})
if any(word in arguments for word in {failing!r}):
    sys.exit(2)
"""


class Checkout:
    """A copy of what the set-up reads, with a fake uv first on PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "calls"
        self.bin = root / "bin"
        (root / ".ci").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("pyproject.toml", "constraints.txt", ".ci/setup_env.py"):
            shutil.copy(ROOT / name, root / name)
        self.uv()

    def uv(self, version: str = "0.8.4 (x)", failing: tuple[str, ...] = ()) -> None:
        """Put a uv on PATH that says it is of a version and fails on some arguments."""
        path = self.bin / "uv"
        path.write_text(
            FAKE_UV.format(
                python=sys.executable, log=str(self.log), version=version, failing=failing
            )
        )
        path.chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the set-up."""
        kept = {k: v for k, v in os.environ.items() if k not in ("UV", "UV_FIND_LINKS")}
        path = f"{self.bin}{os.pathsep}{kept['PATH']}"
        return subprocess.run(
            [sys.executable, ".ci/setup_env.py"],
            cwd=self.root,
            env={**kept, "PATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        """How uv was called, versions aside."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a checkout without an environment."""
    return Checkout(tmp_path / "checkout")


def test_the_cpu_build_of_torch_is_asked_for_first(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    venv, install = checkout.calls
    assert venv.startswith("venv ")
    assert "--constraint constraints.txt --editable . --group dev" in install
    assert install.endswith("--torch-backend=cpu")
    assert "downloads: the CPU build of torch" in done.stderr
    assert done.stdout == ""


def test_a_second_run_does_nothing(checkout: Checkout) -> None:
    checkout.run()
    calls = checkout.calls
    done = checkout.run()
    assert (done.returncode, done.stderr, checkout.calls) == (0, "", calls)


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_changed_inputs_install_again_into_the_same_environment(
    checkout: Checkout, name: str
) -> None:
    checkout.run()
    with (checkout.root / name).open("a") as file:
        file.write("\n# changed\n")
    checkout.run()
    assert [call.split()[0] for call in checkout.calls] == ["venv", "pip", "pip"]


def test_a_broken_environment_is_made_again(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / ".venv" / "bin" / "python").unlink()
    assert checkout.run().returncode == 0
    assert [call.split()[0] for call in checkout.calls] == ["venv", "pip", "venv", "pip"]


def test_a_wheel_at_hand_is_preferred(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux.whl").write_text("")
    done = checkout.run(UV_FIND_LINKS=str(tmp_path))
    assert "torch comes from UV_FIND_LINKS" in done.stderr
    assert "--torch-backend" not in checkout.calls[-1]


def test_links_without_torch_change_nothing(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run(UV_FIND_LINKS=str(tmp_path))
    assert checkout.calls[-1].endswith("--torch-backend=cpu")


def test_without_the_cpu_index_the_plain_build_is_announced(checkout: Checkout) -> None:
    checkout.uv(failing=("--torch-backend=cpu",))
    done = checkout.run()
    assert done.returncode == 0
    assert "about 2.6 GB to download" in done.stderr
    assert "--torch-backend" not in checkout.calls[-1]


def test_an_install_that_fails_is_told_and_tried_again(checkout: Checkout) -> None:
    checkout.uv(failing=("install",))
    done = checkout.run()
    assert done.returncode == 5
    assert "error[environment]" in done.stderr
    assert "Traceback" not in done.stderr
    checkout.uv()
    assert checkout.run().returncode == 0


def test_an_old_uv_is_not_taken(checkout: Checkout) -> None:
    checkout.uv(version="0.4.30")
    private = checkout.root / ".venv-tools" / "bin"
    private.mkdir(parents=True)
    (checkout.bin / "uv").rename(private / "uv")  # old too: the set-up must make a new one
    checkout.uv(version="0.4.30")
    script = (checkout.root / ".ci" / "setup_env.py").read_text()
    script = script.replace(
        "def install_uv() -> str:", "def install_uv() -> str:\n    fail('x', 'y')"
    )
    (checkout.root / ".ci" / "setup_env.py").write_text(script)
    assert checkout.run().returncode == 5
    assert checkout.calls == []


def test_a_uv_named_by_the_user_comes_first(checkout: Checkout) -> None:
    named = checkout.root / "my-uv"
    (checkout.bin / "uv").rename(named)
    (checkout.bin / "uv").write_text("#!/bin/sh\nexit 3\n")
    (checkout.bin / "uv").chmod(0o755)
    assert checkout.run(UV=str(named)).returncode == 0
    assert len(checkout.calls) == 2
