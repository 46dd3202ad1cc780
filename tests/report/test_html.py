"""The page: what it shows, that nothing it quotes can break it, and that it stays small."""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
import re
import time
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args, get_origin

import pytest

from mobilepack.contract.base import Contract
from mobilepack.contract.manifest import Manifest, OperatorCount, StageCost, WeightFormat
from mobilepack.report.findings import findings
from mobilepack.report.html import render_html
from mobilepack.report.markdown import render_markdown
from mobilepack.report.runs import Runs, Unreadable
from tests.packages import toy_package
from tests.report.records import a_bench, a_parity, an_evaluation

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}<!--]]>&#0;\u202e"
VOID = ("meta", "br")
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav"),
    *("section", "h1", "h2", "h3", "p", "a", "div", "span", "small", "br", "code", "strong"),
    *("table", "tr", "th", "td", "ol", "ul", "li", "details", "summary"),
    *("svg", "rect", "line", "circle"),
}
ATTRIBUTES = {
    "rowspan",
    *("lang", "charset", "name", "content", "http-equiv", "id", "class", "style", "href"),
    *("download", "scope", "colspan", "tabindex", "role", "aria-label", "aria-hidden", "open"),
    *("viewbox", "preserveaspectratio", "width", "height", "x", "y", "cx", "cy", "r"),
    *("x1", "x2", "y1", "y2"),
}


class Page(html.parser.HTMLParser):
    """Checks that a page is well formed, and keeps what a test asks for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("td", "th"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(toy_package(tmp_path / "p", quantised=True) / "manifest.json")


@pytest.fixture
def runs() -> Runs:
    return Runs((a_parity("id"),), (a_bench("id"),), (), (an_evaluation("id"),))


def _page(manifest: Manifest, runs: Runs) -> str:
    return render_html(manifest, runs, findings(manifest, runs), "1.2.3")


def test_it_shows_what_was_measured_and_whether_to_believe_it(
    manifest: Manifest, runs: Runs
) -> None:
    page = Page(_page(manifest, runs))
    text = " ".join(page.text.split())
    for shown in (
        "eager quantised against eager fp32 reported rms/std 0.1",
        "program on host against eager quantised failed rms/std 0.02, largest KL 0.5 nats",
        "VALID",
        "NOISY",
        "spread 1.0%",
        "123,456",
        "20 samples",
        "thermal status none light",
        "exact_match ↑ 0.75 ± 0.025",
        "not run no lm-eval",
        "KV cache: 0.00 MB (21.1 %)",  # 4 of 11 + 4 + 4 bytes
        "inside xnnpack: 0.00 MB (100.0 %)",
    ):
        assert shown in text
    (ttft, per_token) = [one for one in page.all("svg") if one.get("role") == "img"]
    assert ttft["aria-label"] == "5 samples from 10 to 10, median 10"
    assert per_token["aria-label"] == "20 samples from 1 to 5, median 3"
    assert sum(one.get("class") == "lost" for one in page.all("rect")) == 2


def test_raw_results_are_saved_from_the_page_itself(manifest: Manifest, runs: Runs) -> None:
    links = [one for one in Page(_page(manifest, runs)).all("a") if "download" in one]
    found = {}
    for link in links:
        head, _, data = link["href"].partition(",")
        assert head == "data:application/json;base64"
        found[link["download"]] = base64.b64decode(data, validate=True).decode()
    assert found == {
        "parity-host.json": runs.parity[0].to_json(),
        "bench-host.json": runs.bench[0].to_json(),
        "eval-host.json": runs.evaluations[0].to_json(),
    }


def test_every_link_of_the_page_leads_somewhere(manifest: Manifest, runs: Runs) -> None:
    for one in (runs, Runs((), (), ())):
        page = Page(_page(manifest, one))
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = [link["href"] for link in page.all("a") if "download" not in link]
        assert links == [f"#{name}" for name in ids]


def test_it_needs_no_network_and_no_script_and_fits_a_phone(manifest: Manifest, runs: Runs) -> None:
    text = _page(manifest, runs)
    page = Page(text)
    metas = {one.get("name", one.get("http-equiv")): one.get("content") for one in page.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    # Wide tables scroll by themselves, with the keyboard too; nothing else has a fixed width.
    for one in page.all("div"):
        if one.get("class") == "wide":
            assert (one["tabindex"], one["role"]) == ("0", "region")
            assert one["aria-label"]
    style = text[text.index("<style>") : text.index("</style>")]
    assert re.findall(r"(?<!max-)(?<!min-)width: (?!100%|\.8rem|device)", style) == []
    assert re.findall(r"min-width: ([^;]+);", style) == ["34rem"]
    assert ".wide table { min-width: 34rem; }" in style


def _infest(value: Any) -> Any:
    """Return a record with hostile text in every field that takes any text, unvalidated."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, tuple):
        return tuple(_infest(one) for one in value)
    if isinstance(value, dict):
        return {_infest(key): _infest(one) for key, one in value.items()}
    if not isinstance(value, Contract):
        return value
    fields = type(value).model_fields
    return value.model_copy(
        update={
            name: _infest(getattr(value, name))
            for name, field in fields.items()
            if not _closed(field.annotation)
        }
    )


def _closed(annotation: Any) -> bool:
    """Return whether a field takes some words only."""
    return get_origin(annotation) is Literal or any(_closed(one) for one in get_args(annotation))


def test_no_text_of_any_field_can_break_the_page(manifest: Manifest) -> None:
    manifest = manifest.model_copy(
        update={
            "weights": (WeightFormat(format="int4", parameters=1, bytes=1),),
            "stages": (StageCost(name="export", wall_s=1.0, cpu_s=1.0, peak_rss_bytes=1),),
            "placement": manifest.placement.model_copy(
                update={"fallback": (OperatorCount(operator="aten::mm", count=1),)}
            ),
        }
    )
    records = (a_parity("id", HOSTILE), a_bench("id", HOSTILE), an_evaluation("id", HOSTILE))
    parity, bench, evaluation = (_infest(record) for record in records)
    lost = Unreadable(Path(f"runs/{HOSTILE}/parity.json"), HOSTILE)
    runs = Runs((parity,), (bench,), (), (evaluation,), (lost,))
    infested = _infest(manifest)
    assert HOSTILE in infested.plan.model.source
    text = _page(infested, runs)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert {name for _, attributes in page.tags for name in attributes} <= ATTRIBUTES
    assert "<!--" not in text
    assert page.text.count("<script>alert(1)</script>") > 60
    # Title and heading name the model by what follows the last slash of its source.
    named = 2 * [infested.plan.model.name]
    whole = [HOSTILE] * page.text.count("<script>alert(1)</script>")
    assert page.text.count("{{ 7*7 }}") == "".join(whole + named).count("{{ 7*7 }}")
    for link in page.all("a"):
        assert link["href"].startswith(("#", "data:application/json;base64,"))
        assert re.fullmatch(r"[A-Za-z0-9._-]*", link.get("download", ""))
    summary = render_markdown(infested, runs, findings(infested, runs), "1.2.3")
    assert "<script" not in summary
    assert "<img" not in summary


def _many(runs: Runs) -> Runs:
    """Return 10,000 rows, tests and tasks, no two alike, so that nothing packs too well."""
    random = Random(0)

    def vary(record: Contract) -> Contract:
        values = {
            "metrics": lambda found: tuple(vary(one) for one in found),
            "value": lambda _: random.random(),
            "samples_ns": lambda found: tuple(random.randrange(10**9) for _ in found),
            "decode_ns": lambda found: tuple((random.randrange(10**7),) * 4 for _ in found),
        }
        present = type(record).model_fields.keys() & values.keys()
        return record.model_copy(update={n: values[n](getattr(record, n)) for n in sorted(present)})

    parity, bench, evaluation = runs.parity[0], runs.bench[0], runs.evaluations[0]
    rows = tuple(vary(row) for row in parity.rows * 2500)
    tests = tuple(vary(test) for test in bench.tests * 5000)
    tasks = tuple(vary(task) for task in evaluation.tasks * 5000)
    return Runs(
        (parity.model_copy(update={"rows": rows}),),
        (bench.model_copy(update={"tests": tests}),),
        (),
        (evaluation.model_copy(update={"tasks": tasks}),),
    )


def test_ten_thousand_rows_stay_usable(manifest: Manifest, runs: Runs) -> None:
    many = _many(runs)
    found = findings(manifest, many)
    start = time.process_time()
    text = render_html(manifest, many, found, "1.2.3")
    took_s = time.process_time() - start
    page = Page(text)
    # Each of the tables and of the strips has at most 200 rows of the 10,000.
    assert len(page.all("tr")) < 1500
    assert len(page.all("li")) < 450
    assert page.text.count("200 of 10,000 are shown; all are in the raw results below.") == 3
    # Measured: 2.0 MB, of which 1.6 MB is the raw data, and 0.5 s; a busy machine gets ten times.
    assert len(text) < 3_000_000
    assert took_s < 5
    (link,) = [one for one in page.all("a") if one.get("download") == "parity-host.json.gz"]
    data = base64.b64decode(link["href"].partition(",")[2])
    assert len(json.loads(gzip.decompress(data))["rows"]) == 10_000
    summary = render_markdown(manifest, many, found, "1.2.3")
    assert len(summary) < 65_536  # what a comment on GitHub holds
    assert "more are left out; report.html carries all." in summary


def test_a_package_that_nobody_ran_has_a_page_too(manifest: Manifest) -> None:
    text = Page(_page(manifest, Runs((), (), ()))).text
    assert "no check of this build" in text
    assert "Raw results" not in text


def test_an_unreadable_result_is_listed(manifest: Manifest, runs: Runs) -> None:
    lost = Unreadable(Path("runs/host/1/eval.json"), "tasks: Field required")
    page = Page(_page(manifest, Runs(runs.parity, runs.bench, (), (), (lost,))))
    assert "runs/host/1/eval.json: tasks: Field required" in page.text
    assert "Speed on host" in page.text
