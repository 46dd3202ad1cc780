"""The committed results: whole documents, comparable, and silent about whose machine it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.record import SCHEMA, Document

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"
RESULTS = [p for p in sorted(FOLDER.glob("*.json")) if p.stem.startswith(("build", "run"))]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_are_documents(path: Path) -> None:
    document = Document.load(path)
    assert (document.schema, document.representative) == (SCHEMA, False)
    assert document.build or document.run
    assert document.finished_utc is not None
    assert all(result.status == "done" or result.why for result in document.build)
    for result in document.run:
        assert {summary.peer for summary in result.summaries} >= {result.subject}


def test_a_saved_document_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    document = Document.load(RESULTS[0])
    here = Path(__file__).resolve().parents[2]
    document.command = (str(here / "x"), str(Path.home() / "y"))
    document.save(tmp_path / "d.json")
    assert json.loads((tmp_path / "d.json").read_text())["command"] == ["./x", "~/y"]
