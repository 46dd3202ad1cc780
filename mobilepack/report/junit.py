"""JUnit XML: what a CI system shows as test cases.

The dialect is that of pytest and Jenkins' xunit plug-in: `testsuites` of `testsuite`s of
`testcase`s, each with `failure`, `skipped` or `error`, and `properties` for figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from mobilepack.contract.base import write_atomically
from mobilepack.contract.parity import Measured, Parity, ParityRow
from mobilepack.report.runs import Runs

Outcome = Literal["passed", "failure", "skipped", "error"]
_OUTCOMES: dict[str, Outcome] = {"failed": "failure", "not run": "skipped"}
NOT_VERIFIED = "no check of this build: run `mobilepack verify`"


@dataclass(frozen=True, slots=True)
class Case:
    """One test case; `why` is the message of anything but `passed`."""

    name: str
    outcome: Outcome
    why: str = ""
    classname: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suite:
    """Test cases of one run; `timestamp` is ISO 8601, empty where nobody noted it."""

    name: str
    cases: Sequence[Case]
    timestamp: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


def write_junit(path: Path, suite: Suite) -> None:
    """Write a file with one suite."""
    write_atomically(path, _text(_suite(suite)))


def junit_of_runs(runs: Runs) -> str:
    """Return the newest parity check of each device as JUnit XML.

    A row of the ladder is a test case with its metrics and limits as properties; what was only
    reported passes. A result that cannot be read is an error, and no check at all a skipped case.
    """
    root = ElementTree.Element("testsuites", name="mobilepack verify")
    suites = [_of_parity(parity) for parity in runs.parity]
    lost = tuple(Case(one.path.as_posix(), "error", one.why) for one in runs.unreadable)
    if lost:
        suites.append(Suite("unreadable results", lost))
    if not suites:
        suites.append(Suite("mobilepack verify", (Case("parity", "skipped", NOT_VERIFIED),)))
    root.extend(_suite(suite) for suite in suites)
    return _text(root)


def _of_parity(parity: Parity) -> Suite:
    properties = {
        "plan_id": parity.plan_id,
        "target": parity.target,
        "recipe": parity.recipe,
        "device": parity.device,
        "culprit": parity.culprit or "",
    }
    cases = tuple(_case(row, parity.device) for row in parity.rows)
    return Suite(f"parity on {parity.device}", cases, parity.utc, properties)


def _case(row: ParityRow, device: str) -> Case:
    against = f" against {row.against}" if row.against else ""
    properties = {"status": row.status, "compared": str(row.compared)}
    for metric in row.metrics:
        properties |= _metric(metric)
    return Case(
        f"{row.rung}{against}: {row.check}",
        _OUTCOMES.get(row.status, "passed"),
        row.reason or _broken(row.metrics),
        f"parity.{device}.{row.rung}",
        properties,
    )


def _metric(metric: Measured) -> dict[str, str]:
    shown = {metric.name: repr(metric.value)}
    if metric.limit is not None:
        sign = "<=" if metric.better == "lower" else ">="
        shown[f"{metric.name}_limit"] = f"{sign} {metric.limit!r}"
    return shown


def _broken(metrics: Iterable[Measured]) -> str:
    return "; ".join(
        f"{one.name} is {one.value:.6g}, limit {one.limit:.6g}"
        for one in metrics
        if one.limit is not None and not one.ok
    )


def _suite(suite: Suite) -> ElementTree.Element:
    element = ElementTree.Element("testsuite", name=_xml(suite.name), tests=str(len(suite.cases)))
    for attribute, outcome in (("failures", "failure"), ("errors", "error"), ("skipped",) * 2):
        element.set(attribute, str(sum(one.outcome == outcome for one in suite.cases)))
    if suite.timestamp:
        element.set("timestamp", _xml(suite.timestamp))
    _properties(element, suite.properties)
    for one in suite.cases:
        classname = _xml(one.classname or suite.name)
        case = ElementTree.SubElement(element, "testcase", classname=classname, name=_xml(one.name))
        _properties(case, one.properties)
        if one.outcome != "passed":
            ElementTree.SubElement(case, one.outcome, message=_xml(one.why))
    return element


def _properties(parent: ElementTree.Element, properties: Mapping[str, str]) -> None:
    if not properties:
        return
    holder = ElementTree.SubElement(parent, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(holder, "property", name=_xml(name), value=_xml(value))


def _text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Return text without the characters that XML 1.0 cannot hold."""
    return "".join(c if _allowed(c) else "\ufffd" for c in text)


def _allowed(character: str) -> bool:
    if character in "\ufffe\uffff":
        return False
    return character in "\t\n\r" or " " <= character < "\ud800" or character >= "\ue000"
