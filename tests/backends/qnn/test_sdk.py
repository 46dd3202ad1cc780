"""Qualcomm's libraries are found, laid out once for all, and tried before they are used."""

from __future__ import annotations

import multiprocessing
import platform
import sys
from pathlib import Path

import pytest

from mobilepack.backends.qnn import sdk
from mobilepack.backends.qnn.probe import PROBE, usable_sdk
from mobilepack.backends.qnn.sdk import HOST, LIBRARIES, Sdk, find_sdk, lay_out, library_version
from mobilepack.errors import ExitCode, MissingError, MobilepackError, UsageError

ABI = Path(__file__).resolve().parents[2] / "data" / "qnn" / "abi.txt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(sdk.VARIABLE, raising=False)
    return tmp_path / "cache" / "qnn"


def wheel(folder: Path) -> Path:
    """Return a folder shaped as the package's."""
    libraries = folder / "onnxruntime_qnn"
    libraries.mkdir(parents=True)
    (folder / "onnxruntime_qnn.libs").mkdir()
    for name in LIBRARIES:
        (libraries / name).write_bytes(b"\x7fELF AISW_VERSION: 2.49.40\0")
    return libraries


def own_sdk(root: Path, version: str = "2.49.40") -> Path:
    folder = root / "lib" / HOST
    folder.mkdir(parents=True)
    for name in LIBRARIES:
        (folder / name).write_bytes(b"\x7fELF v" + version.encode() + b".260810104044\0")
    return root


def test_the_layout_links_to_the_package(cache: Path, tmp_path: Path) -> None:
    root = lay_out(wheel(tmp_path / "site"))
    assert root.parent == cache
    for name in LIBRARIES:
        link = root / "lib" / HOST / name
        assert link.is_symlink()
        assert link.resolve() == (tmp_path / "site" / "onnxruntime_qnn" / name).resolve()
    assert (root / "lib" / "onnxruntime_qnn.libs").is_dir()
    assert [path.name for path in cache.iterdir()] == [root.name]


def test_a_layout_is_made_once_and_mended_when_it_broke(cache: Path, tmp_path: Path) -> None:
    folder = wheel(tmp_path / "site")
    root = lay_out(folder)
    inode = root.stat().st_ino
    assert lay_out(folder).stat().st_ino == inode
    link = root / "lib" / HOST / LIBRARIES[0]
    link.unlink()
    link.symlink_to("/nowhere")
    assert lay_out(folder) == root
    assert link.resolve().is_file()
    assert [path.name for path in cache.iterdir()] == [root.name]


def test_two_environments_have_two_layouts(cache: Path, tmp_path: Path) -> None:
    assert lay_out(wheel(tmp_path / "one")) != lay_out(wheel(tmp_path / "two"))


def _lay_out(folder: Path) -> str:
    return str(lay_out(folder))


def test_many_at_once_agree(cache: Path, tmp_path: Path) -> None:
    folder = wheel(tmp_path / "site")
    with multiprocessing.get_context("fork").Pool(8) as pool:
        roots = pool.map(_lay_out, [folder] * 32)
    assert len(set(roots)) == 1
    assert [path.name for path in cache.iterdir()] == [Path(roots[0]).name]


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path / "file"))
    with pytest.raises(MissingError, match="cannot lay out"):
        lay_out(wheel(tmp_path / "site"))


def test_the_installed_package_is_the_pinned_one(cache: Path) -> None:
    found = find_sdk()
    assert (found.version, found.origin) == (sdk.QNN_VERSION, "package")
    assert found.libraries.joinpath("libQnnHtp.so").is_file()
    env = found.environment()
    assert env["QNN_SDK_ROOT"] == str(found.root)
    assert env["LD_LIBRARY_PATH"].split(":")[0] == str(found.libraries)


def test_an_own_sdk_is_taken_from_option_or_environment(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = own_sdk(tmp_path / "one"), own_sdk(tmp_path / "other", "2.31.0")
    monkeypatch.setenv(sdk.VARIABLE, str(one))
    assert find_sdk() == Sdk(one, "2.49.40", "user")
    assert find_sdk(other) == Sdk(other, "2.31.0", "user")


def test_a_folder_that_is_no_sdk_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a QAIRT SDK") as caught:
        find_sdk(tmp_path)
    assert "libQnnHtp.so" in caught.value.why


def test_other_machines_are_told_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(MissingError, match="on this machine") as caught:
        find_sdk()
    assert caught.value.exit_code == ExitCode.MISSING


def test_a_library_without_a_version_is_refused(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"no version here")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="cannot tell the version"):
            library_version(tmp_path / name)


def _fake(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def test_an_sdk_with_another_abi_is_refused_with_the_reason(cache: Path, tmp_path: Path) -> None:
    root = own_sdk(tmp_path / "sdk", "2.48.40")
    script = f"import sys; sys.stderr.write(open({str(ABI)!r}).read()); sys.exit(1)"
    with pytest.raises(UsageError, match=r"cannot use the QAIRT SDK 2\.48\.40") as caught:
        usable_sdk(root, _fake(script))
    assert "another layout" in caught.value.why
    assert "unknown custom config socModel" in caught.value.why


@pytest.mark.parametrize(
    ("script", "says"),
    [("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"), ("print('maybe')", "maybe")],
)
def test_a_probe_that_dies_is_quoted(cache: Path, tmp_path: Path, script: str, says: str) -> None:
    with pytest.raises(MobilepackError) as caught:
        usable_sdk(own_sdk(tmp_path / "sdk"), _fake(script))
    assert says in caught.value.why


def test_what_worked_once_is_not_tried_again(cache: Path, tmp_path: Path) -> None:
    root = own_sdk(tmp_path / "sdk")
    usable_sdk(root, _fake("print('ready')"))
    usable_sdk(root, _fake("raise SystemExit(1)"))
    (root / "lib" / HOST / "libQnnHtp.so").write_bytes(b"AISW_VERSION: 2.50.0\0")
    with pytest.raises(UsageError):
        usable_sdk(root, _fake("raise SystemExit(1)"))


@pytest.mark.slow
def test_the_real_libraries_open_a_device(cache: Path) -> None:
    assert usable_sdk(probe=PROBE).version == sdk.QNN_VERSION
