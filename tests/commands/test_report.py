"""The report says what the newest runs of this build prove, and what nobody looked at."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.report import report
from mobilepack.commands.verify import verify
from mobilepack.contract.base import write_atomically
from mobilepack.contract.parity import Parity
from mobilepack.testing import FakeHarness
from tests.packages import toy_package

_NUMBERS = {"float": r"(?<=[ :\[])-?\d+\.\d+(e-?\d+)?(?=[,\n])", "int": r"(?<=[ :\[])\d+(?=[,\n])"}
FAST = BenchOptions(prompt_tokens=(8,), gen_tokens=(4,), warmups=1, repetitions=5)


class _Page(html.parser.HTMLParser):
    """Collects the text, and whatever a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):  # others of HTML that have no end do not occur
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package that was verified and timed on the fake harness."""
    root = toy_package(tmp_path / "toy", quantised=True)
    verify(root, harness=FakeHarness())
    bench(root, FAST, harness=FakeHarness())
    return root


def _statuses(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report(root).findings:
        found.setdefault(finding.status, []).append(finding.text)
    return found


def test_a_package_without_runs_is_neither_proved_nor_timed(tmp_path: Path) -> None:
    found = _statuses(toy_package(tmp_path / "toy"))
    assert set(found) == {"noted", "not run"}
    assert found["not run"] == [
        "no check of this build: run `mobilepack verify`",
        "no timing of this build: run `mobilepack bench`",
    ]


def test_a_proved_package_says_so(package: Path) -> None:
    found = _statuses(package)
    assert len(found["passed"]) == 1
    assert "are within tolerance on" in found["passed"][0]
    assert "failed" not in found
    assert [text.split(":")[0] for text in found["measured"]] == ["pp8", "tg4"]
    assert any("emulated arm64" in text for text in found["not run"])


def test_a_failed_check_names_the_culprit(package: Path) -> None:
    (path,) = package.glob("runs/*/*/parity.json")
    parity = Parity.read(path)
    judged = next(i for i, row in enumerate(parity.rows) if row.status == "passed")
    broken = parity.rows[judged].model_copy(update={"status": "failed", "reason": "too far"})
    rows = (*parity.rows[:judged], broken, *parity.rows[judged + 1 :])
    update = {"passed": False, "culprit": broken.rung, "rows": rows}
    write_atomically(path, parity.model_copy(update=update).to_json())
    found = _statuses(package)
    assert broken.rung in found["failed"][0]
    assert found["failed"][1].endswith("too far")
    assert "passed" not in found


def test_runs_of_another_build_do_not_count(package: Path) -> None:
    for path in package.glob("runs/*/*/*.json"):
        if path.name in ("parity.json", "bench.json"):
            record = path.read_text().replace('"plan_id": "', '"plan_id": "0')
            path.write_text(record)
    found = _statuses(package)
    assert "passed" not in found
    assert "measured" not in found
    assert any("2 older results of another build" in text for text in found["noted"])


def test_the_newest_run_of_a_device_counts(package: Path) -> None:
    (path,) = package.glob("runs/*/*/bench.json")
    older = path.parent.parent / "20000101T000000Z"
    shutil.copytree(path.parent, older)
    assert len(_statuses(package)["measured"]) == 2


def test_the_page_is_whole_and_fetches_nothing(package: Path) -> None:
    result = report(package)
    page = _Page(result.html.read_text(encoding="utf-8"))
    assert page.open == []
    assert all(link.startswith(("#", "data:application/json;")) for link in page.fetched)
    for text in ("toys/toy", "What is proved", "representative: false", "model.pte", "pp8"):
        assert text in page.text
    for finding in result.findings:
        assert finding.text in page.text


def test_a_name_cannot_break_the_page(tmp_path: Path) -> None:
    root = toy_package(tmp_path / "toy", source="<script>alert(1)</script>")
    text = report(root).html.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_verb_prints_the_findings_and_where_the_page_is(
    run: Callable[..., Any], package: Path, tmp_path: Path
) -> None:
    ran = run("report", package, "--html", tmp_path / "mine.html")
    assert ran.code == 0
    assert ran.out.splitlines()[-2:] == [
        f"report: {tmp_path / 'mine.html'}",
        f"summary: {package / 'report.md'}",
    ]
    assert (tmp_path / "mine.html").is_file()
    document = run("report", package, "--json").document
    assert document["html"] == str(package / "report.html")
    assert {finding["status"] for finding in document["findings"]} >= {"passed", "measured"}


def test_a_damaged_result_is_told_and_takes_down_nothing(
    run: Callable[..., Any], package: Path
) -> None:
    (path,) = package.glob("runs/*/*/parity.json")
    path.write_text(path.read_text()[:-10])
    ran = run("report", package)
    assert ran.code == 0
    told = next(line for line in ran.out.splitlines() if line.startswith("unreadable"))
    assert str(path) in told
    assert "measured" in ran.out
    assert str(path) in _Page((package / "report.html").read_text(encoding="utf-8")).text
    assert str(path) in run("inspect", package).out
    refused = run("compare", package, package)
    assert refused.code == 2
    assert str(path) in refused.err


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"[" * 100_000, b"null", None])
def test_no_damage_takes_down_the_report(package: Path, damage: bytes | None) -> None:
    for path in package.glob("runs/*/*/*.json"):
        path.unlink()
        if damage is None:
            path.mkdir()
        else:
            path.write_bytes(damage)
    found = _statuses(package)
    assert len(found["unreadable"]) == 2
    assert len(found["not run"]) == 2


def test_the_exports_are_written_where_they_are_asked_for(
    run: Callable[..., Any], package: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / "new" / name for name in ("junit", "llama-bench", "hud")}
    ran = run("report", package, *(part for n, f in files.items() for part in (f"--{n}", f)))
    assert ran.code == 0
    assert ran.out.splitlines()[-3:] == [f"{name}: {file}" for name, file in files.items()]
    assert ElementTree.parse(files["junit"]).getroot().tag == "testsuites"  # noqa: S314 - ours
    rows = json.loads(files["llama-bench"].read_text())
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(8, 0), (0, 4)]
    assert {record["benchmark"]["name"] for record in json.loads(files["hud"].read_text())} == {
        "mobilepack"
    }


@pytest.mark.parametrize("number", ["1e999", "NaN", "-5", "1" + "0" * 400])
def test_no_number_takes_down_the_report(
    run: Callable[..., Any], package: Path, tmp_path: Path, number: str
) -> None:
    (bench,) = package.glob("runs/*/*/bench.json")
    (parity,) = package.glob("runs/*/*/parity.json")
    for path in (bench, parity):
        text = path.read_text()
        # In every field whose type takes the number; the others would make the file unreadable.
        for kind in ("float", "int"):
            swapped = re.sub(_NUMBERS[kind], number, text)
            path.write_text(swapped)
            names = ("junit", "llama-bench", "hud")
            files = [part for name in names for part in (f"--{name}", tmp_path / name)]
            ran = run("report", package, *files)
            assert ran.code == 0, ran.err
            assert not _Page((package / "report.html").read_text(encoding="utf-8")).open
            json.loads((tmp_path / "hud").read_text(), parse_constant=pytest.fail)
            json.loads((tmp_path / "llama-bench").read_text(), parse_constant=pytest.fail)
