"""A disk that fills up while a build writes: one error, nothing left, the next build is whole.

A limit on the size of files (EFBIG) stands in for the disk where no other is at hand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mobilepack.errors import ExitCode
from tests.pipeline.build_server import ROOT, BuildServer, Order, Outcome
from tests.pipeline.conftest import CHOICES
from tests.pipeline.packages import assert_left_nothing, assert_same_package, files

pytestmark = pytest.mark.slow

Undisturbed = tuple[Path, Outcome]


def limits(package: Path) -> dict[str, int]:
    """Return limits that end a build at different files."""
    program = (package / "model.pte").stat().st_size
    reference = (package / "reference" / "reference.safetensors").stat().st_size
    assert program < reference
    return {
        "its state": 40,
        "first weights": 9_000,
        "last weights": program - 1_000,
        "reference": (program + reference) // 2,
    }


@pytest.mark.parametrize("where", ["its state", "first weights", "last weights", "reference"])
def test_a_build_that_runs_out_of_room_leaves_nothing(
    where: str, server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    limit = limits(undisturbed[0])[where]
    failed = server.build(Order(str(checkpoint), str(tmp_path), CHOICES, file_limit_bytes=limit))
    assert (failed.error, failed.exit_code) == ("disk-full", ExitCode.BUILD_FAILED), failed
    assert "File too large" in failed.why
    assert_left_nothing(tmp_path)


def test_the_older_package_stays_and_the_next_build_is_whole(
    server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed[0], tmp_path / "xnnpack")
    before = files(tmp_path / "xnnpack")
    limit = limits(undisturbed[0])["last weights"]
    order = Order(str(checkpoint), str(tmp_path), CHOICES, force=True, file_limit_bytes=limit)
    assert server.build(order).error == "disk-full"
    assert files(tmp_path / "xnnpack") == before
    again = server.build(Order(str(checkpoint), str(tmp_path), CHOICES, force=True))
    assert not again.error, again
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])


def on_a_disk_of(size: int, mount: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a real, small file system at `mount`, and list what it left there."""
    script = (
        'mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99; where="$2"; shift 2; '
        '"$@"; code=$?; ls -A "$where/out" 2>/dev/null; exit $code'
    )
    argv = ["unshare", "-rm", "sh", "-c", script, "sh", str(size), str(mount), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("room", ["less than the program", "less than the package"])
def test_a_real_disk_that_is_too_small(
    room: str, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    if shutil.which("unshare") is None or on_a_disk_of(65536, tmp_path, ["true"]).returncode == 99:
        pytest.skip("this user may not mount a file system of its own")
    sizes = limits(undisturbed[0])
    size = sizes["last weights"] if room == "less than the program" else sizes["reference"]
    command = [sys.executable, "-m", "mobilepack", "build", str(checkpoint), "-o"]
    lengths = ["--max-seq-len", "32", "--prefill-chunk", "8"]
    done = on_a_disk_of(size, tmp_path, [*command, str(tmp_path / "out"), *lengths])
    assert done.returncode == ExitCode.BUILD_FAILED, done.stderr
    assert "error[disk-full]: cannot write a package to" in done.stderr
    assert ("model.pte needs" in done.stderr) == (room == "less than the program")
    assert done.stdout.split() == [".xnnpack.lock"]
