"""The runner looks at the kernel's thermal zones; those here are files in their form."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobilepack.harness.native.build import RUNNER, SOURCES, compile_runner, toolchain
from tests.harness.parts import provisioned

__all__ = ["provisioned"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
Look = Callable[[], str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("temperatures")
    own = Path(__file__).with_name("temperatures_main.cpp")
    compile_runner(folder, toolchain("x86_64"), [SOURCES / "machine.cpp", own])
    return folder / RUNNER


@pytest.fixture
def look(program: Path, tmp_path: Path) -> Iterator[Look]:
    """Return what samples once and says everything that was seen so far."""
    argv = [str(program), str(tmp_path / "thermal")]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as child:

        def ask() -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("now\n")
            child.stdin.flush()
            return child.stdout.readline().rstrip("\n")

        yield ask


def zone(folder: Path, number: int, kind: str, millidegrees: object) -> None:
    path = folder / "thermal" / f"thermal_zone{number}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "type").write_text(f"{kind}\n")
    (path / "temp").write_text(f"{millidegrees}\n")


def test_zones_are_ranges_and_the_hottest_comes_first(look: Look, tmp_path: Path) -> None:
    zone(tmp_path, 0, "battery", 30500)
    zone(tmp_path, 1, "cpu-1-3", 41200)
    assert look() == "cpu-1-3=41.2..41.2; battery=30.5..30.5"
    zone(tmp_path, 1, "cpu-1-3", 55000)
    assert look() == "cpu-1-3=41.2..55; battery=30.5..30.5"
    zone(tmp_path, 0, "battery", 61000)
    zone(tmp_path, 1, "cpu-1-3", 40000)
    assert look() == "battery=30.5..61; cpu-1-3=40..55"


def test_at_most_eight_zones_are_told(look: Look, tmp_path: Path) -> None:
    for number in range(12):
        zone(tmp_path, number, f"z{number}", 30000 + 1000 * number)
    told = look().split("; ")
    assert told[0] == "z11=41..41"
    assert len(told) == 8


@pytest.mark.parametrize("said", ["", "0", "-40000", "2147483647", "nothing"])
def test_a_zone_that_tells_nothing_is_unknown_not_zero(
    look: Look, tmp_path: Path, said: str
) -> None:
    assert look() == "unknown"  # there is no such folder
    zone(tmp_path, 0, "off", said)
    (tmp_path / "thermal/cooling_device0").mkdir()
    assert look() == "unknown"
