"""A gate's rows in the formats that CI systems read: JUnit XML and SARIF 2.1.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mobilepack.contract.base import write_atomically
from mobilepack.contract.gate import Judged
from mobilepack.report.sarif import Result, sarif


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


@dataclass(frozen=True, slots=True)
class _Rule:
    """The one rule of SARIF that all broken rows share."""

    id: str = "gate"
    name: str = "A figure breaks a rule of the gate"
    level: str = "error"
    why: str = "a package or a run changed by more than the gate allows"
    remedy: str = "mend what changed, or change the rule on purpose"
    source: str = "the gate file"


def write_sarif(path: Path, judged: Sequence[Judged], gate: Path | None) -> None:
    """Write one result per broken row, located in the gate file."""
    failed = [one for one in judged if one.outcome == "failed"]
    results = [Result("gate", "error", f"{one.metric}: {one.why}", one.metric) for one in failed]
    artifact = gate.as_posix() if gate is not None and not gate.is_absolute() else "gate.toml"
    write_atomically(path, sarif([_Rule()], results, artifact, "mobilepack compare"))


def _xml(text: str) -> str:
    """Return text without the characters that XML 1.0 cannot hold."""
    return "".join(c if _allowed(c) else "\ufffd" for c in text)


def _allowed(character: str) -> bool:
    return character in "\t\n\r" or " " <= character < "\ud800" or character >= "\ue000"
