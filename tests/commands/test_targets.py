"""The list of targets is what lies in targets/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mobilepack.commands.targets import targets
from mobilepack.target import target_names


def test_every_shipped_target_is_listed() -> None:
    assert tuple(target.name for target in targets()) == target_names()


def test_the_verb_prints_a_row_per_target(run: Callable[..., Any]) -> None:
    lines = run("targets").out.splitlines()
    assert lines[0].split() == ["target", "backend", "recipe", "for", "runs", "on"]
    assert [line.split()[0] for line in lines[1:]] == list(target_names())


def test_the_document_holds_whole_targets(run: Callable[..., Any]) -> None:
    document = run("targets", "--json").document
    names = [target["name"] for target in document["targets"]]
    assert names == list(target_names())
    assert document["targets"][0]["shape"]["max_seq_len"] >= 2
