"""Builds at the same time into the same folder: each ends well, and what is there is whole."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mobilepack.contract.package import open_package
from mobilepack.errors import MobilepackError
from tests.pipeline.build_server import BuildServer, Order, Outcome
from tests.pipeline.conftest import CHOICES
from tests.pipeline.packages import assert_clean, assert_same_package

pytestmark = pytest.mark.slow


def test_two_builds_of_the_same_plan_share_one(
    server: BuildServer, checkpoint: Path, undisturbed: tuple[Path, Outcome], tmp_path: Path
) -> None:
    order = Order(str(checkpoint), str(tmp_path), CHOICES)
    outcomes = [server.wait(started) for started in [server.start(order) for _ in range(3)]]
    assert not any(outcome.error for outcome in outcomes), outcomes
    assert sorted(outcome.up_to_date for outcome in outcomes) == [False, True, True]
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])
    assert_clean(tmp_path)


def test_two_builds_of_different_plans_leave_one_of_them_whole(
    server: BuildServer, checkpoint: Path, undisturbed: tuple[Path, Outcome], tmp_path: Path
) -> None:
    orders = [
        Order(str(checkpoint), str(tmp_path), {**CHOICES, "embedding": kind})
        for kind in ("8w", "4w", "8w")
    ]
    stop, seen = threading.Event(), set[str]()

    def read() -> None:
        while not stop.wait(0.01):
            try:
                seen.add(open_package(tmp_path).manifest.plan_id)
            except MobilepackError as err:
                seen.add(err.code)

    reader = threading.Thread(target=read)
    reader.start()
    outcomes = [server.wait(started) for started in [server.start(order) for order in orders]]
    stop.set()
    reader.join()
    assert not any(outcome.error for outcome in outcomes), outcomes
    plans = {outcome.plan_id for outcome in outcomes}
    assert len(plans) == 2
    assert open_package(tmp_path).manifest.plan_id in plans
    # a reader that opens the old package while it is replaced may find its files gone, and says so
    assert seen <= {*plans, "no-package", "damaged-package", "unreadable-file"}
    assert_clean(tmp_path)


def test_builds_into_different_folders_do_not_meet(
    server: BuildServer, checkpoint: Path, undisturbed: tuple[Path, Outcome], tmp_path: Path
) -> None:
    """The same plan, wherever it is built, is the same program and the same plan_id."""
    orders = [Order(str(checkpoint), str(tmp_path / n), CHOICES) for n in ("one", "two")]
    outcomes = [server.wait(started) for started in [server.start(order) for order in orders]]
    assert {outcome.plan_id for outcome in outcomes} == {undisturbed[1].plan_id}
    for name in ("one", "two"):
        assert_same_package(tmp_path / name / "xnnpack", undisturbed[0])
        assert_clean(tmp_path / name)
