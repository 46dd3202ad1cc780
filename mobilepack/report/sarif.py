"""Findings as SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mobilepack.version import __version__

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class SarifRule(Protocol):
    """What a rule says about itself; levels are SARIF's own words."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def remedy(self) -> str: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Result:
    """A finding: its rule, level, message, and the full name of what it is about."""

    rule: str
    level: str
    message: str
    where: str


def sarif(
    rules: Sequence[SarifRule],
    results: Sequence[Result],
    artifact: str,
    tool: str = "mobilepack lint",
) -> str:
    """Return a log with one run as JSON text.

    Args:
        artifact: Path of the file that was looked at.
        tool: Who found it.
    """
    places = {item.id: index for index, item in enumerate(rules)}
    driver = {
        "name": tool,
        "version": __version__,
        "rules": [_rule(item) for item in rules],
    }
    found = [_result(item, places[item.rule], artifact) for item in results]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": found}],
    }
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _rule(item: SarifRule) -> dict[str, object]:
    return {
        "id": item.id,
        "name": item.name,
        "shortDescription": {"text": item.name},
        "fullDescription": {"text": f"{item.why} (source: {item.source})"},
        "help": {"text": item.remedy},
        "defaultConfiguration": {"level": item.level},
    }


def _result(item: Result, index: int, artifact: str) -> dict[str, object]:
    return {
        "ruleId": item.rule,
        "ruleIndex": index,
        "level": item.level,
        "message": {"text": item.message},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": artifact.replace("\\", "/")}},
                "logicalLocations": [{"fullyQualifiedName": item.where, "kind": "function"}],
            }
        ],
    }
