"""The plug-in, in pytest runs of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mobilepack.process import child_env
from tests.packages import toy_package

SUITE = """
import mobilepack
from mobilepack.testing import FakeHarness

def test_device(mobilepack_device):
    assert mobilepack_device.device.id == "host"

def test_parity(mobilepack_package, mobilepack_metrics):
    result = mobilepack.verify(mobilepack_package.root, harness=FakeHarness())
    mobilepack_metrics(result)
    result.raise_if_failed()

def test_speed(mobilepack_package, mobilepack_metrics):
    options = mobilepack.BenchOptions(prompt_tokens=(4,), gen_tokens=(2,), repetitions=5)
    mobilepack_metrics(mobilepack.bench(mobilepack_package.root, options, harness=FakeHarness()))
"""

TURNS = """
import os, time
import pytest

@pytest.mark.parametrize("turn", range(6))
def test_alone_with_the_device(mobilepack_device, turn):
    began = time.monotonic()
    time.sleep(0.1)
    with open("turns.txt", "a") as turns:
        turns.write(f"{os.environ['PYTEST_XDIST_WORKER']} {began} {time.monotonic()}\\n")
"""


def suite(folder: Path, *arguments: str, source: str = SUITE) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mobilepack.pytest_plugin", *arguments]
    env = child_env() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HOME": os.environ["HOME"]}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=env, check=False, timeout=120
    )


def test_packages_and_metrics(tmp_path: Path) -> None:
    packages = [toy_package(tmp_path / name) for name in ("one", "two")]
    named = [word for path in packages for word in ("--mobilepack-package", str(path))]
    done = suite(tmp_path, *named, "--junitxml", "results.xml")
    assert "5 passed" in done.stdout, done.stdout + done.stderr
    tree = ElementTree.parse(tmp_path / "results.xml")  # noqa: S314 - our own file
    properties = {one.get("name"): one.get("value") for one in tree.iter("property")}
    assert properties["mobilepack.passed"] == "True"
    assert properties["mobilepack.pp4.trust"] == "NOT REPRESENTATIVE"
    assert any("rms_over_std" in str(name) for name in properties)


def test_beside_xdist_no_two_tests_share_a_device(tmp_path: Path) -> None:
    done = suite(tmp_path, "-p", "xdist", "-n", "2", source=TURNS)
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    turns = [line.split() for line in (tmp_path / "turns.txt").read_text().splitlines()]
    assert {worker for worker, _, _ in turns} == {"gw0", "gw1"}
    times = sorted((float(began), float(ended)) for _, began, ended in turns)
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(times))


def test_without_a_package_tests_are_skipped_and_say_so(tmp_path: Path) -> None:
    done = suite(tmp_path, "-rs")
    assert "1 passed, 2 skipped" in done.stdout
    assert "no package was named: --mobilepack-package FOLDER" in done.stdout


def test_a_device_that_is_not_there_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adb = tmp_path / "adb"
    adb.write_text("#!/bin/sh\necho List of devices attached\n")
    adb.chmod(0o755)
    monkeypatch.setenv("MOBILEPACK_ADB", str(adb))
    done = suite(tmp_path, "--mobilepack-device", "absent")
    assert "cannot run on the device 'absent'" in done.stdout
