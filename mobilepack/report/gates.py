"""A gate's rows in the formats that CI systems read: JUnit XML and SARIF 2.1.0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mobilepack import __version__
from mobilepack.contract.base import write_atomically
from mobilepack.contract.gate import Judged

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def write_junit(path: Path, judged: Sequence[Judged], suite: str) -> None:
    """Write one test case per row; what was not judged is a skipped case with its reason."""
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(judged)),
        failures=str(sum(one.outcome == "failed" for one in judged)),
        skipped=str(sum(one.outcome == "not judged" for one in judged)),
    )
    for one in judged:
        case = ElementTree.SubElement(root, "testcase", classname=suite, name=_xml(one.metric))
        if one.outcome == "failed":
            ElementTree.SubElement(case, "failure", message=_xml(one.why))
        elif one.outcome == "not judged":
            ElementTree.SubElement(case, "skipped", message=_xml(one.why))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
    write_atomically(path, text + "\n")


def write_sarif(path: Path, judged: Sequence[Judged], gate: Path | None) -> None:
    """Write one result per broken row, located in the gate file."""
    failed = [one for one in judged if one.outcome == "failed"]
    uri = gate.as_posix() if gate is not None and not gate.is_absolute() else "gate.toml"
    location = {"physicalLocation": {"artifactLocation": {"uri": uri}}}
    results = [
        {
            "ruleId": "gate",
            "level": "error",
            "message": {"text": f"{one.metric}: {one.why}"},
            "locations": [location],
        }
        for one in failed
    ]
    rule = {"id": "gate", "shortDescription": {"text": "A figure breaks a rule of the gate"}}
    driver = {"name": "mobilepack", "version": __version__, "rules": [rule]}
    log = {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    write_atomically(path, json.dumps(log, indent=2) + "\n")


def _xml(text: str) -> str:
    """Return text without the characters that XML 1.0 cannot hold."""
    return "".join(c if _allowed(c) else "\ufffd" for c in text)


def _allowed(character: str) -> bool:
    return character in "\t\n\r" or " " <= character < "\ud800" or character >= "\ue000"
