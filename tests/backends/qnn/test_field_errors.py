"""Every log that was recorded or published leads to its cause and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.backends.qnn.field_errors import RULES, cause_of, explained

LOGS = Path(__file__).resolve().parents[2] / "data" / "qnn"
FILES = sorted(LOGS.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_log_is_recognised(path: Path) -> None:
    log = path.read_text()
    found = cause_of(log)
    assert found is not None
    assert found.name == path.stem.removesuffix("-app")
    assert found.quote in log
    assert found.cause
    assert found.remedy


def test_every_rule_but_the_catch_all_has_a_log() -> None:
    covered = {path.stem.removesuffix("-app") for path in FILES}
    assert {rule.name for rule in RULES} - covered == {"device"}


def test_every_log_says_where_it_is_from() -> None:
    readme = (LOGS / "README.md").read_text()
    assert all(f"`{path.name}`" in readme for path in FILES)


@pytest.mark.parametrize("code", [1000, 1002, 1008, 5000, 14001, 30010])
def test_a_bare_code_has_an_explanation(code: int) -> None:
    assert explained(code)


def test_a_code_alone_does_not_decide() -> None:
    assert {rule.name for rule in explained(1002)} == {"weights-not-mapped", "graph-too-large"}


def test_an_unknown_log_is_not_guessed_at() -> None:
    assert cause_of("Segmentation fault") is None
    assert cause_of("") is None


def test_the_most_telling_line_wins_over_what_follows_from_it() -> None:
    log = "\n".join((LOGS / f"{name}.txt").read_text() for name in ("skel-not-found", "abi"))
    found = cause_of(log)
    assert found is not None
    assert found.name == "abi"
