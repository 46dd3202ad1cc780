"""Every small language model of the surveys builds, runs and matches (docs/models.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.cases import CASES, Case
from tests.matrix.check import run_case


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_family_builds_runs_and_matches(case: Case, tmp_path: Path) -> None:
    outcome = run_case(case, tmp_path)
    assert not outcome.problems()
    assert outcome.quantised_share >= 0.95
