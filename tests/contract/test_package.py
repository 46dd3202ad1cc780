"""A package opens only if every file is present, inside, whole and unaltered."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilepack.contract.package import open_package
from mobilepack.errors import MissingError, MobilepackError, UsageError
from tests.packages import toy_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return toy_package(tmp_path / "out" / "xnnpack")


def _edit(package: Path, **changes: object) -> None:
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0] |= changes
    path.write_text(json.dumps(manifest))


def test_it_opens_by_its_folder_and_by_the_output_folder(package: Path) -> None:
    for path in (package, package.parent):
        opened = open_package(path)
        assert opened.root == package
        assert opened.program == package / "model.pte"
        assert opened.lists("reference")
        assert opened.lists("tokenizer.json")
        assert not opened.lists("refer")


def test_results_of_runs_are_not_part_of_it(package: Path) -> None:
    (package / "runs").mkdir()
    (package / "runs" / "x.json").write_text("{}")
    open_package(package)


def test_a_folder_without_a_package_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no manifest\.json"):
        open_package(tmp_path)
    with pytest.raises(MissingError, match="no such folder"):
        open_package(tmp_path / "absent")


def test_several_packages_are_listed(package: Path) -> None:
    toy_package(package.parent / "qnn")
    with pytest.raises(UsageError, match="qnn, xnnpack"):
        open_package(package.parent)


def test_every_altered_truncated_or_missing_file_is_named_at_once(package: Path) -> None:
    (package / "model.pte").write_bytes(b"TOY program")
    (package / "tokenizer.json").write_text("{}")
    (package / "reference" / "reference.json").unlink()
    with pytest.raises(UsageError) as caught:
        open_package(package)
    assert caught.value.code == "damaged-package"
    assert "model.pte was altered" in caught.value.why
    assert "tokenizer.json has 2 bytes" in caught.value.why
    assert "reference.json: No such file" in caught.value.why


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "a\\b", ".", "x\0y"])
def test_a_path_that_leaves_the_package_is_refused(package: Path, path: str) -> None:
    _edit(package, path=path)
    with pytest.raises(UsageError, match=r"leaves the package|is not a file"):
        open_package(package)


def test_a_link_that_leaves_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes((package / "model.pte").read_bytes())
    (package / "model.pte").unlink()
    (package / "model.pte").symlink_to(outside)
    with pytest.raises(UsageError, match="link that leaves"):
        open_package(package)


def test_something_that_is_no_file_is_not_read(package: Path) -> None:
    (package / "model.pte").unlink()
    os.mkfifo(package / "model.pte")
    with pytest.raises(UsageError, match="not a file"):
        open_package(package)


def test_a_broken_manifest_names_every_key(package: Path) -> None:
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["surprise"] = 1
    del manifest["plan_id"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UsageError) as caught:
        open_package(package)
    assert "surprise" in caught.value.why
    assert "plan_id" in caught.value.why


def test_a_plan_that_was_edited_by_hand_is_noticed(package: Path) -> None:
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["plan"]["max_seq_len"] = 4096
    path.write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="plan_id"):
        open_package(package)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_no_damage_to_the_manifest_gets_past_our_errors(package: Path, data: st.DataObject) -> None:
    path = package / "manifest.json"
    whole = path.with_name("whole.json")
    if not whole.exists():
        whole.write_bytes(path.read_bytes())
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(raw)
    with contextlib.suppress(MobilepackError):
        open_package(package)


def test_a_name_too_long_for_a_file_is_reported(package: Path) -> None:
    _edit(package, path="x" * 5000)
    with pytest.raises(UsageError, match="too long"):
        open_package(package)


def test_a_package_without_a_single_program_says_so(package: Path) -> None:
    _edit(package)
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = [f for f in manifest["files"] if f["path"] != "model.pte"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(MissingError, match=r"0 \.pte files"):
        _ = open_package(package).program
