"""Every small language model of the surveys builds, runs and matches (docs/models.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.models.families.registry import all_families
from tests.matrix.cases import CASES, Case
from tests.matrix.check import run_case


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_family_builds_runs_and_matches(case: Case, tmp_path: Path) -> None:
    outcome = run_case(case, tmp_path)
    assert not outcome.problems()
    assert outcome.quantised_share >= 0.95


def test_the_page_has_a_row_per_case_and_none_that_fails() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if " | `" in line]
    assert [row[0].strip("| ") for row in rows] == [case.name for case in CASES]
    assert "**fails**" not in page


def test_every_family_has_a_case() -> None:
    covered = {case.model_type for case in CASES}
    aliases = {"gemma3"}  # the same family as gemma3_text, with a vision tower beside
    assert set(all_families()) - aliases == covered
