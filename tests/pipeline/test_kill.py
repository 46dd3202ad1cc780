"""Builds killed with SIGKILL anywhere: no half package shows, and the next build makes it whole."""

from __future__ import annotations

import fnmatch
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from mobilepack.contract.package import open_package
from tests.pipeline.build_server import BuildServer, Order, Outcome
from tests.pipeline.conftest import CHOICES
from tests.pipeline.packages import assert_clean, assert_nothing_half, assert_same_package

pytestmark = pytest.mark.slow

PARTIAL = ".xnnpack.partial"
MOMENTS = {
    "before the workspace": (f"open {PARTIAL}/.build.json", 0),
    "while its state is written": (f"os.chmod {PARTIAL}/..build.json.*", 0),
    "in the export": ("stage export 0.000", 0),
    "while the journal is made": (f"os.rename {PARTIAL}/..model.journal.*", 0),
    "before the first byte": (f"open {PARTIAL}/model.pte", 1),
    "after one region": ("stage weights *", 2),
    "early in the weights": ("stage weights 0.1*", 12),
    "late in the weights": ("stage weights 0.6*", 1),
    "after the last region": ("stage reference 0.000", 0),
    "in the reference": ("stage reference 0.5*", 0),
    "while the reference is written": (f"os.rename {PARTIAL}/reference/.reference.saf*", 0),
    "between the reference's files": (f"open {PARTIAL}/reference/.reference.json.*", 0),
    "while companions are copied": (f"open {PARTIAL}/tokenizer.json", 0),
    "while the manifest is written": (f"os.rename {PARTIAL}/.manifest.json.*", 0),
    "while it is tidied": (f"os.remove {PARTIAL}/.model.journal", 0),
    "before it is published": (f"os.rename {PARTIAL}", 0),
    "after it is published": ("stage package 1.000", 0),
}
Undisturbed = tuple[Path, Outcome]


def moment(outcome: Outcome, pattern: str, number: int) -> int:
    """Return the event (from 1) that matches a pattern for the n-th time, from 0."""
    found = [i for i, e in enumerate(outcome.events, 1) if fnmatch.fnmatchcase(e, pattern)]
    assert len(found) > number, f"{pattern} is not among {outcome.events}"
    return found[number]


@pytest.mark.parametrize("name", MOMENTS)
def test_a_build_killed_at_any_moment_is_made_whole_by_the_next(
    name: str, server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    package, whole = undisturbed
    at = moment(whole, *MOMENTS[name])
    order = Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at)
    assert server.build(order).signal == signal.SIGKILL
    assert_nothing_half(tmp_path)
    resumed = server.build(Order(str(checkpoint), str(tmp_path), CHOICES))
    assert not resumed.error, resumed
    assert resumed.up_to_date == (name == "after it is published")
    assert_same_package(tmp_path / "xnnpack", package)
    assert_clean(tmp_path)


def test_what_is_written_is_not_written_again(
    server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    at = moment(undisturbed[1], "stage package 0.000", 0)
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at))
    program = tmp_path / PARTIAL / "model.pte"
    before = program.stat()
    resumed = server.build(Order(str(checkpoint), str(tmp_path), CHOICES))
    after = (tmp_path / "xnnpack" / "model.pte").stat()
    assert after.st_ino == before.st_ino
    assert not any(event.startswith("stage reference") for event in resumed.events)
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])


@pytest.mark.parametrize("seed", range(2))
def test_kills_from_outside_one_after_the_other(
    seed: int, server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    chosen, order = random.Random(seed), Order(str(checkpoint), str(tmp_path), CHOICES)
    for _ in range(4):
        started = server.start(order)
        time.sleep(chosen.uniform(0.05, 1.5))
        os.kill(started[0], signal.SIGKILL)
        server.wait(started)
        assert_nothing_half(tmp_path)
    last = server.build(order)
    assert not last.error, last
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])
    assert_clean(tmp_path)


def test_a_kill_in_an_odd_place_of_the_journal_is_survived(
    server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """A line that was cut short must not run into the next one and name another region."""
    at = moment(undisturbed[1], "stage weights *", 20)
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at))
    journal = tmp_path / PARTIAL / ".model.journal"
    journal.write_text(journal.read_text()[:-2])
    later = Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at + 6)
    assert server.build(later).signal == signal.SIGKILL
    numbers = [int(line) for line in journal.read_text().splitlines()[1:]]
    assert numbers == sorted(numbers)
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES))
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])


def test_a_partial_build_whose_program_is_gone_starts_again(
    server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    at = moment(undisturbed[1], "stage weights 0.6*", 0)
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at))
    (tmp_path / PARTIAL / "model.pte").unlink()
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES))
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])


def test_another_plan_does_not_go_on_from_it(
    server: BuildServer, checkpoint: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    at = moment(undisturbed[1], "stage reference 0.5*", 0)
    other = {**CHOICES, "embedding": "8w"}
    server.build(Order(str(checkpoint), str(tmp_path), other, kill_at=at))
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES))
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])
    assert_clean(tmp_path)


REPLACING = (
    "os.rename xnnpack",
    f"os.rename {PARTIAL}",
    "os.rename .xnnpack.old/runs",
    "shutil.rmtree .xnnpack.old",
    "os.rmdir .xnnpack.old",
)


@pytest.fixture(scope="module")
def replacing(
    server: BuildServer,
    checkpoint: Path,
    undisturbed: Undisturbed,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Outcome]:
    """Return an older package of another plan, and what happens while it is replaced."""
    old, out = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("replaced")
    server.build(Order(str(checkpoint), str(old), {**CHOICES, "embedding": "8w"}))
    runs = old / "xnnpack" / "runs" / "host" / "20261121T000000Z"
    runs.mkdir(parents=True)
    (runs / "log.txt").write_text("measured all night")
    shutil.copytree(old / "xnnpack", out / "xnnpack")
    outcome = server.build(Order(str(checkpoint), str(out), CHOICES))
    assert (out / "xnnpack" / runs.relative_to(old / "xnnpack") / "log.txt").is_file()
    return old / "xnnpack", outcome


@pytest.mark.parametrize("pattern", REPLACING)
def test_a_package_is_replaced_by_a_whole_one_or_stays_and_keeps_its_runs(
    pattern: str,
    server: BuildServer,
    checkpoint: Path,
    undisturbed: Undisturbed,
    replacing: tuple[Path, Outcome],
    tmp_path: Path,
) -> None:
    old, events = replacing
    shutil.copytree(old, tmp_path / "xnnpack")
    at = moment(events, pattern, 0)
    killed = server.build(Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at))
    assert killed.signal == signal.SIGKILL
    assert_nothing_half(tmp_path)
    # a build of the old plan finds the old package again, unless it has been replaced
    ids = {open_package(path).manifest.plan_id for path in (old, undisturbed[0])}
    finished = server.build(Order(str(checkpoint), str(tmp_path), CHOICES))
    assert not finished.error, finished
    assert finished.plan_id in ids
    runs = tmp_path / "xnnpack" / "runs"
    assert [path.name for path in runs.rglob("log.txt")] == ["log.txt"]
    shutil.rmtree(runs)
    assert_same_package(tmp_path / "xnnpack", undisturbed[0])
    assert_clean(tmp_path)


def test_a_package_that_was_moved_aside_comes_back(
    server: BuildServer, checkpoint: Path, replacing: tuple[Path, Outcome], tmp_path: Path
) -> None:
    old, events = replacing
    shutil.copytree(old, tmp_path / "xnnpack")
    at = moment(events, f"os.rename {PARTIAL}", 0)
    server.build(Order(str(checkpoint), str(tmp_path), CHOICES, kill_at=at))
    assert not (tmp_path / "xnnpack").exists()
    same = server.build(Order(str(checkpoint), str(tmp_path), {**CHOICES, "embedding": "8w"}))
    assert same.up_to_date
    open_package(tmp_path)
