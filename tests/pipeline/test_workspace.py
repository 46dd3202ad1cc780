"""The folder a build works in, without a build."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from mobilepack.errors import BuildError, ExitCode, UsageError
from mobilepack.pipeline.workspace import FULL, disk_full, locked, open_workspace, working


def published(out: Path, plan_id: str = "a") -> Path:
    """Publish a folder with a manifest and one file."""
    with locked(out, "xnnpack"):
        workspace = open_workspace(out, "xnnpack", plan_id)
        (workspace.folder / "manifest.json").write_text("{}")
        (workspace.folder / "model.pte").write_text(plan_id)
        workspace.publish()
    return out / "xnnpack"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_nothing_shows_until_it_is_published(tmp_path: Path) -> None:
    with locked(tmp_path / "out", "xnnpack"):
        workspace = open_workspace(tmp_path / "out", "xnnpack", "a")
        (workspace.folder / "model.pte").write_text("half")
        assert not (tmp_path / "out" / "xnnpack").exists()
        assert all(name.startswith(".") for name in names(tmp_path / "out"))


def test_hidden_files_of_the_work_are_not_published(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path, "xnnpack", "a")
    (workspace.folder / "reference").mkdir()
    for name in (".model.journal", ".manifest.json.abc123", "reference/.reference.json.xyz"):
        (workspace.folder / name).write_text("cut short")
    (workspace.folder / "model.pte").write_text("whole")
    workspace.publish()
    assert [p.name for p in (tmp_path / "xnnpack").rglob("*") if p.is_file()] == ["model.pte"]


def test_work_of_the_same_plan_is_kept_and_of_another_removed(tmp_path: Path) -> None:
    first = open_workspace(tmp_path, "xnnpack", "a")
    (first.folder / "model.pte").write_text("half")
    assert (open_workspace(tmp_path, "xnnpack", "a").folder / "model.pte").exists()
    assert not (open_workspace(tmp_path, "xnnpack", "b").folder / "model.pte").exists()


@pytest.mark.parametrize("state", ["", "[]", '{"plan_id": "a", "boot": "another"}', "\udcff{"])
def test_work_of_unknown_origin_is_removed(state: str, tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path, "xnnpack", "a")
    (workspace.folder / "model.pte").write_text("half")
    (workspace.folder / ".build.json").write_bytes(state.encode(errors="surrogateescape"))
    again = open_workspace(tmp_path, "xnnpack", "a")
    assert names(again.folder) == {".build.json"}
    assert json.loads((again.folder / ".build.json").read_text())["plan_id"] == "a"


def test_publishing_replaces_and_keeps_what_was_measured(tmp_path: Path) -> None:
    package = published(tmp_path)
    (package / "runs" / "host").mkdir(parents=True)
    (package / "runs" / "host" / "bench.json").write_text("measured")
    published(tmp_path, "b")
    assert (package / "model.pte").read_text() == "b"
    assert (package / "runs" / "host" / "bench.json").read_text() == "measured"
    assert names(tmp_path) == {"xnnpack", ".xnnpack.lock"}


def write_and_raise(out: Path, plan_id: str, err: BaseException) -> None:
    with working(out, "xnnpack", plan_id) as workspace:
        (workspace.folder / "model.pte").write_text("half")
        raise err


def test_an_error_removes_the_work_and_leaves_the_published_package_alone(tmp_path: Path) -> None:
    package = published(tmp_path)
    with pytest.raises(ZeroDivisionError):
        write_and_raise(tmp_path, "b", ZeroDivisionError())
    assert names(tmp_path) == {"xnnpack", ".xnnpack.lock"}
    assert (package / "model.pte").read_text() == "a"


def test_an_interrupted_build_can_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(tmp_path, "a", KeyboardInterrupt())
    with working(tmp_path, "xnnpack", "a") as workspace:
        assert (workspace.folder / "model.pte").read_text() == "half"


@pytest.mark.parametrize("number", sorted(FULL))
def test_a_write_that_finds_no_room_is_told_as_a_full_disk(number: int, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as failure, working(tmp_path, "xnnpack", "a"):
        raise OSError(number, "no room")
    assert failure.value.code == "disk-full"
    assert not names(tmp_path)


def test_a_package_moved_aside_by_a_killed_build_is_put_back(tmp_path: Path) -> None:
    package = published(tmp_path)
    package.rename(tmp_path / ".xnnpack.old")
    with locked(tmp_path, "xnnpack"):
        assert (package / "model.pte").read_text() == "a"
    assert names(tmp_path) == {"xnnpack", ".xnnpack.lock"}


@pytest.mark.parametrize("kind", ["folder", "file", "repository"])
def test_what_no_build_wrote_is_never_replaced(kind: str, tmp_path: Path) -> None:
    """`-o .` in a folder that holds a clone of XNNPACK must not delete it."""
    foreign = tmp_path / "xnnpack"
    if kind == "file":
        foreign.write_text("mine")
    else:
        (foreign / (".git" if kind == "repository" else "data")).mkdir(parents=True)
    with pytest.raises(UsageError) as failure, locked(tmp_path, "xnnpack"):
        raise AssertionError("the lock was given")
    assert failure.value.code == "not-a-package"
    assert str(foreign) in failure.value.what
    assert foreign.exists()


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "xnnpack").mkdir()
    assert (published(tmp_path) / "model.pte").read_text() == "a"


def test_an_output_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError) as failure, locked(tmp_path / "out", "xnnpack"):
        raise AssertionError("the lock was given")
    assert failure.value.code == "unwritable-output"


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "xnnpack"):
        raise ZeroDivisionError
    with locked(tmp_path, "xnnpack"):
        pass


def test_a_full_disk_says_what_needed_room_and_how_much_there_is(tmp_path: Path) -> None:
    err = disk_full(tmp_path, "model.pte needs 12.0 MB", OSError(errno.ENOSPC, "No space left"))
    assert isinstance(err, BuildError)
    assert err.exit_code == ExitCode.BUILD_FAILED
    assert err.why.startswith("model.pte needs 12.0 MB, and ")
    assert err.why.endswith(" MB are free: No space left")
    assert {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} == FULL
