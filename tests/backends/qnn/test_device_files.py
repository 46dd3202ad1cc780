"""What a phone needs is listed, looked for and taken, from an SDK's folder or an AAR."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.backends.qnn.device_files import (
    look_for,
    needed_files,
    runtime_release,
    take,
)
from mobilepack.backends.qnn.versions import check_runtime, is_new_enough
from mobilepack.errors import ExitCode, MissingError, RunFailedError, UsageError
from mobilepack.soc import load_soc

SOC = load_soc("SM8750")


def library(version: str) -> bytes:
    return f"\x7fELF AISW_VERSION: {version}\0".encode()


def sdk(root: Path, version: str = "2.50.0") -> Path:
    for file in needed_files(SOC):
        path = root / file.sdk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(library(version))
    return root


def aar(path: Path, version: str = "2.50.0", without: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        for file in needed_files(SOC):
            if file.name != without:
                archive.writestr(file.aar, library(version))
    return path


def test_the_names_carry_the_chips_hexagon() -> None:
    names = {file.name for file in needed_files(SOC)}
    assert {"libQnnHtp.so", "libQnnHtpV79Stub.so", "libQnnHtpV79Skel.so"} <= names
    (skel,) = (file for file in needed_files(SOC) if "Skel" in file.name)
    assert skel.sdk == "lib/hexagon-v79/unsigned/libQnnHtpV79Skel.so"


@pytest.mark.parametrize("make", [sdk, aar], ids=["sdk", "aar"])
def test_files_are_found_and_taken(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path / "source")
    found = look_for(source, SOC, "2.49.40")
    assert {(item.version, item.problem) for item in found} == {("2.50.0", "")}
    written = take(source, found, tmp_path / "push")
    assert {path.name for path in written} == {file.name for file in needed_files(SOC)}
    assert all(path.read_bytes() == library("2.50.0") for path in written)
    assert sorted(path.name for path in (tmp_path / "push").iterdir()) == sorted(
        path.name for path in written
    )


def test_an_older_runtime_is_refused_before_the_phone_does(tmp_path: Path) -> None:
    source = aar(tmp_path / "runtime.aar", "2.49.0")
    found = look_for(source, SOC, "2.49.40")
    assert all("older than 2.49.40 (error 5000)" in item.problem for item in found)
    with pytest.raises(MissingError, match="does not hold what the phone needs"):
        take(source, found, tmp_path / "push")
    assert not (tmp_path / "push").exists()


def test_what_is_missing_is_named_and_what_is_optional_is_not(tmp_path: Path) -> None:
    source = aar(tmp_path / "a.aar", without="libQnnHtpV79Skel.so")
    problems = {item.file.name: item.problem for item in look_for(source, SOC, "2.49.40")}
    assert problems["libQnnHtpV79Skel.so"] == "is missing"
    assert problems["libQnnHtp.so"] == ""
    source = aar(tmp_path / "b.aar", without="libQnnHtpPrepare.so")
    assert not any(item.problem for item in look_for(source, SOC, "2.49.40"))


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    source = tmp_path / "evil.aar"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("../outside.so", b"")
        for file in needed_files(SOC):
            archive.writestr(file.aar, library("2.50.0"))
    take(source, look_for(source, SOC, "2.49.40"), tmp_path / "deep" / "push")
    assert not list(tmp_path.rglob("outside.so"))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_noise_is_no_source(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.aar"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read"):
        look_for(path, SOC, "2.49.40")


def test_the_rule_of_versions() -> None:
    assert is_new_enough("2.49.40", "2.49.40")
    assert is_new_enough("2.49.40", "2.50.0")
    assert not is_new_enough("2.49.40", "2.49.9")
    assert runtime_release("2.49.40") == "2.50.0"
    assert runtime_release("2.46.0") == "2.46.0"
    with pytest.raises(MissingError, match="cannot name a release"):
        runtime_release("3.0.0")
    check_runtime(None, "1.0.0", "here")
    with pytest.raises(RunFailedError) as caught:
        check_runtime("2.49.40", "2.31.0", "this phone")
    assert "error 5000" in caught.value.why


def test_the_verb_prints_all_that_an_app_needs(run: Callable[..., Any], tmp_path: Path) -> None:
    ran = run("device-files", "--target", "qnn", "--soc-model", "sm8750")
    assert ran.code == ExitCode.OK
    artefacts = ("com.qualcomm.qti:qnn-runtime:2.50.0", "org.pytorch:executorch-android-qnn:")
    for words in ("libQnnHtpV79Skel.so", "ADSP_LIBRARY_PATH=.", "libcdsprpc.so", *artefacts):
        assert words in ran.out
    old = aar(tmp_path / "old.aar", "2.37.0")
    ran = run("device-files", "--soc-model", "SM8750", "--from", old)
    assert ran.code == ExitCode.MISSING
    assert "older than 2.49.40" in ran.out
    new = aar(tmp_path / "new.aar")
    ran = run("device-files", "--soc-model", "SM8750", "--from", new, "-o", "push", "--json")
    assert ran.code == ExitCode.OK
    assert len(ran.document["written"]) == 5


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--target", "xnnpack"], "its delegate is part of ExecuTorch"),
        (["--soc-model", "SM9999"], "there is no SoC"),
        (["-o", "push"], "there is nothing to copy from"),
    ],
)
def test_what_cannot_be_is_said(run: Callable[..., Any], arguments: list[str], why: str) -> None:
    ran = run("device-files", *arguments)
    assert ran.code == ExitCode.USAGE
    assert why in ran.err
