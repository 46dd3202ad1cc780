"""A package goes into an app's folder; the phone is virtual, its `run-as` and app a stand-in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mobilepack.commands.deploy import deploy, places
from mobilepack.commands.devices import AdbServer, clean
from mobilepack.errors import MissingError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.store import ROOT, Store
from mobilepack.harness.virtual.phones import Phone
from tests.commands.test_app import repacked

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
APP = "mobilepack.demo"
# run-as of Android 14: system/core/run-as/run-as.cpp says these words and ends with 1.
RUN_AS = """#!/system/bin/sh
test -d "/data/data/$1" || { echo "run-as: unknown package: $1" >&2; exit 1; }
test -e "/data/data/$1/closed" && { echo "run-as: package not debuggable: $1" >&2; exit 1; }
cd "/data/data/$1" && shift && exec "$@"
"""


@pytest.fixture
def app(lab: Phone, on_phone: Adb) -> Path:
    """Install nothing but the folder of an app; return it."""
    root = lab.folder / "root"
    program = root / "system/bin/run-as"
    program.write_text(RUN_AS)
    program.chmod(0o755)
    folder = root / "data/data" / APP
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def test_only_what_changed_is_pushed_and_the_app_has_the_package(
    lab: Phone, app: Path, quantised: Path, tmp_path: Path
) -> None:
    (place,) = places([lab.name])
    first = deploy(quantised, place)
    names = {"model.pte", "tokenizer.json", "manifest.json", "prompt.txt"}
    assert set(first.pushed) | set(first.copied) == names
    there = app / "files/package"
    assert {path.name for path in there.iterdir()} == names
    assert (there / "model.pte").read_bytes() == (quantised / "model.pte").read_bytes()
    assert set(deploy(quantised, place).kept) == names

    (there / "stale.bin").write_bytes(b"x")
    changed = repacked(quantised, tmp_path / "changed", tokenizer=b"{}")
    second = deploy(changed, place)
    assert set(second.pushed) == {"tokenizer.json", "manifest.json"}
    assert set(second.kept) == {"model.pte", "prompt.txt"}
    assert second.removed == ("stale.bin",)
    assert {path.name for path in there.iterdir()} == names


def test_a_program_that_was_verified_there_is_not_pushed_again(
    lab: Phone, app: Path, on_phone: Adb, quantised: Path
) -> None:
    Store(on_phone).program(quantised / "model.pte")
    (place,) = places([lab.serial])
    assert deploy(quantised, place).copied == ("model.pte",)


def test_an_app_that_is_not_there_or_closed_is_said(lab: Phone, app: Path, quantised: Path) -> None:
    (absent,) = places([lab.name], app_id="com.example.absent")
    with pytest.raises(MissingError) as failure:
        deploy(quantised, absent)
    assert failure.value.code == "app-absent"
    assert "unknown package: com.example.absent" in failure.value.why
    (app / "closed").touch()
    (place,) = places([lab.name])
    with pytest.raises(MissingError) as failure:
        deploy(quantised, place)
    assert failure.value.code == "app-not-debuggable"


def test_clean_removes_our_files_and_leaves_the_app_its_own(
    lab: Phone, app: Path, on_phone: Adb, quantised: Path
) -> None:
    (place,) = places([lab.name])
    deploy(quantised, place)
    Store(on_phone).program(quantised / "model.pte")
    done = clean(lab.serial, AdbServer())
    assert done.freed_bytes is not None
    assert done.freed_bytes >= (quantised / "model.pte").stat().st_size
    assert on_phone.ask(["ls", "-d", ROOT]) == ""
    assert (app / "files/package/model.pte").is_file()
    assert clean(lab.serial, AdbServer()).freed_bytes is None  # nothing to measure
