"""Tables line up, sizes are for people, and records become plain JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from mobilepack.cli import render
from mobilepack.cli.progress import Lines, Silent, steps
from mobilepack.contract.manifest import Recipe


def test_a_table_aligns_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(("name", "bytes", "note"), [("a", 1234567, "x"), ("long", None, "")])
    assert capsys.readouterr().out.splitlines() == [
        "name      bytes  note",
        "a     1,234,567  x",
        "long          -",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (93_999_568, "94.0 MB"),
        (963_000_000, "963.0 MB"),
        (1_500_000_000, "1.50 GB"),
        (12_000_000_000, "12.00 GB"),
    ],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert render.size(count) == text


def test_a_status_reads_the_same_without_colour() -> None:
    for word in ("ok", "failed", "not run", "nothing special"):
        assert click.unstyle(render.status(word)) == word


@dataclass(frozen=True, slots=True)
class Sample:
    """A record with one of each."""

    path: Path
    recipe: Recipe
    rows: tuple[tuple[str, int], ...]
    nothing: None = None


def test_records_become_plain_json() -> None:
    sample = Sample(Path("a") / "b", Recipe(), (("x", 1),))
    data = json.loads(json.dumps(render.plain({"s": sample})))
    assert data["s"]["path"] == "a/b"
    assert data["s"]["recipe"]["linear"] == "8da4w"
    assert data["s"]["rows"] == [["x", 1]]
    assert data["s"]["nothing"] is None


def test_a_document_names_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    render.document("plan", {"answer": 42})
    document = json.loads(capsys.readouterr().out)
    assert document == {"schema": "mobilepack/plan/1", "kind": "plan", "answer": 42}


def test_progress_is_one_line_per_step_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with steps("build") as progress:
        assert isinstance(progress, Lines)
        for label, done in (("export", 0), ("export", 0.5), ("weights", 0), ("", 1)):
            progress.step(label, done, 1)
    captured = capsys.readouterr()
    assert captured.err == "build: export\nbuild: weights\n"
    assert captured.out == ""


def test_progress_is_silent_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with steps("build", quiet=True) as progress:
        assert isinstance(progress, Silent)
        progress.step("export", 0, 1)
    assert capsys.readouterr().err == ""
