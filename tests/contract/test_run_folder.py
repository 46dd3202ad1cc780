"""Runs get folders of their own whose names sort by time."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from mobilepack.contract.run_folder import new_run_folder
from mobilepack.errors import UsageError

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)


def test_two_runs_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    first, second = (new_run_folder(tmp_path, "host", NOW) for _ in range(2))
    later = new_run_folder(tmp_path, "host", NOW + datetime.timedelta(seconds=1))
    names = [run.path.name for run in (first, second, later)]
    assert names == sorted(set(names))
    assert first.path == tmp_path / "runs" / "host" / "20260304T050607Z"
    assert first.utc == "2026-03-04T05:06:07Z"


@pytest.mark.parametrize("device", ["192.168.0.7:5555", "../up", "a b", "..."])
def test_any_device_id_stays_below_runs(tmp_path: Path, device: str) -> None:
    folder = new_run_folder(tmp_path, device, NOW)
    assert folder.path.resolve().parent.parent == (tmp_path / "runs").resolve()


def test_a_package_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UsageError, match="cannot write results"):
        new_run_folder(tmp_path, "host", NOW)
