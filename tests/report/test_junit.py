"""The ladder as JUnit XML: what failed fails, what did not run is skipped, nothing is lost."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from mobilepack.report.junit import junit_of_runs
from mobilepack.report.runs import Runs, Unreadable
from tests.report.records import UTC, a_parity


def _parse(runs: Runs) -> ElementTree.Element:
    return ElementTree.fromstring(junit_of_runs(runs))  # noqa: S314 - our own text


def _properties(element: ElementTree.Element) -> dict[str, str]:
    found = element.findall("properties/property")
    return {one.get("name", ""): one.get("value", "") for one in found}


def test_each_row_is_a_case_with_its_metrics() -> None:
    root = _parse(Runs((a_parity("id"),), (), ()))
    (suite,) = root
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "1"}
    assert (suite.get("name"), suite.get("timestamp")) == ("parity on host", UTC)
    assert _properties(suite)["culprit"] == "program on host"
    reported, passed, failed, skipped = suite.findall("testcase")
    assert [one.tag for one in (*reported, *passed)] == ["properties", "properties"]
    assert _properties(reported)["status"] == "reported"
    assert passed.get("name") == "program on host against eager quantised: longest: prefill of 512"
    assert passed.get("classname") == "parity.host.program on host"
    assert _properties(passed) == {
        "status": "passed",
        "compared": "1",
        "rms_over_std": "0.02",
        "rms_over_std_limit": "<= 0.03",
    }
    failure, skip = failed.find("failure"), skipped.find("skipped")
    assert failure is not None
    assert failure.get("message") == "kl_max is 0.5, limit 0.01"
    assert skip is not None
    assert skip.get("message") == "no device was asked for"


def test_without_a_check_a_skipped_case_says_so() -> None:
    (suite,) = _parse(Runs((), (), ()))
    (case,) = suite.findall("testcase")
    assert suite.get("skipped") == suite.get("tests") == "1"
    assert "run `mobilepack verify`" in str(case.find("skipped").get("message"))  # type: ignore[union-attr]


def test_an_unreadable_result_is_an_error_and_not_a_gap() -> None:
    lost = Unreadable(Path("runs/host/1/parity.json"), "rows: Field required")
    (suite,) = _parse(Runs((), (), (), unreadable=(lost,)))
    assert suite.get("errors") == "1"
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("message") == "rows: Field required"


def test_no_name_can_break_the_file() -> None:
    hostile = "\x00\x1b]0;\ufffe\"'<script>&]]>"
    (suite,) = _parse(Runs((a_parity("id", hostile),), (), ()))
    assert "<script>&]]>" in str(suite.get("name"))
