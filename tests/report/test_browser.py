"""The page in a real browser: Debian's headless Chromium, unpacked without root."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.manifest import Manifest
from mobilepack.errors import MissingError
from mobilepack.harness.provision.debian import Suite, unpacked
from mobilepack.report.findings import findings
from mobilepack.report.html import render_html
from mobilepack.report.runs import Runs
from tests.harness.parts import provisioned
from tests.packages import toy_package
from tests.report.records import a_bench, a_parity, an_evaluation
from tests.report.test_html import HOSTILE, _many

__all__ = ["provisioned"]
pytestmark = pytest.mark.slow
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="session")
def browser(provisioned: object) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    try:
        root = unpacked(Suite.of_this_machine(), ("chromium-headless-shell", "fonts-dejavu-core"))
    except MissingError as err:
        pytest.skip(f"Chromium cannot be provisioned here: {err.why}")
    folders = [root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu"]
    folders += [root / "usr/lib/x86_64-linux-gnu/pulseaudio"]
    environment = {
        "LD_LIBRARY_PATH": ":".join(map(str, folders)),
        "FONTCONFIG_PATH": str(root / "etc/fonts"),
    }
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=root / "usr/lib/chromium/chromium-headless-shell",
            env=environment,
            args=["--no-sandbox"],  # it wants a setuid helper, which an unpacked folder cannot have
        )
        yield found
        found.close()


def written(tmp_path: Path, *, text: str = "", many: bool = False) -> Path:
    manifest = Manifest.read(toy_package(tmp_path / "p", quantised=True) / "manifest.json")
    runs = Runs((a_parity("id", text),), (a_bench("id"),), (), (an_evaluation("id"),))
    runs = _many(runs) if many else runs
    path = tmp_path / "report.html"
    path.write_text(render_html(manifest, runs, findings(manifest, runs), "1.2.3"), "utf-8")
    return path


@pytest.fixture
def watched(browser: Any) -> Iterator[tuple[Any, list[str]]]:
    """Return a page of a phone's size and what it did that a page must not do."""
    context = browser.new_context(viewport=PHONE, accept_downloads=True)
    page, bad = context.new_page(), []
    page.on("dialog", lambda dialog: (bad.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: bad.append(f"error {error}"))
    page.on("console", lambda line: bad.append(f"console {line.text}"))
    page.on(
        "request",
        lambda asked: asked.url.startswith(("file:", "data:")) or bad.append(asked.url),
    )
    yield page, bad
    context.close()


def test_it_is_read_and_clicked_through_on_a_phone(
    watched: tuple[Any, list[str]], tmp_path: Path
) -> None:
    page, bad = watched
    page.goto(written(tmp_path).as_uri())
    for link in page.locator("nav a").all():
        link.click()
        section = page.locator(link.get_attribute("href"))
        assert section.is_visible()
        assert section.bounding_box()["y"] < PHONE["height"]
    for summary in page.locator("summary").all():
        before = summary.evaluate("s => s.parentElement.open")
        if summary.is_visible():
            summary.click()
            assert summary.evaluate("s => s.parentElement.open") != before
    # nothing makes the page itself scroll sideways; wide tables scroll in a frame of their own
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert bad == []


def test_every_raw_file_can_be_downloaded_without_a_network(
    watched: tuple[Any, list[str]], tmp_path: Path
) -> None:
    page, bad = watched
    page.context.set_offline(True)
    page.goto(written(tmp_path).as_uri())
    links = page.locator("a[download]").all()
    assert len(links) >= 3
    for link in links:
        with page.expect_download() as started:
            link.click()
        file = Path(started.value.path())
        raw = file.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        assert json.loads(data)["schema"].startswith("mobilepack/")
        assert started.value.suggested_filename == link.get_attribute("download")
    assert bad == []


def test_the_keyboard_reaches_everything_that_can_be_used(
    watched: tuple[Any, list[str]], tmp_path: Path
) -> None:
    page, _ = watched
    page.goto(written(tmp_path).as_uri())
    usable = "a, summary, [tabindex='0']"
    wanted = page.locator(usable).evaluate_all("all => all.filter(e => e.checkVisibility()).length")
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                f'[...document.querySelectorAll("{usable}")].indexOf(document.activeElement)'
            )
        )
    assert len(reached - {-1}) == wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_have_contrast(
    watched: tuple[Any, list[str]], tmp_path: Path, scheme: str
) -> None:
    page, _ = watched
    page.emulate_media(color_scheme=scheme)
    page.goto(written(tmp_path).as_uri())
    # a page without a background of its own lies on the browser's canvas
    ink, paper = page.evaluate(
        "(() => { const body = getComputedStyle(document.body);"
        " const mark = document.createElement('div'); document.body.append(mark);"
        " const own = body.backgroundColor, clear = 'rgba(0, 0, 0, 0)';"
        " mark.style.backgroundColor = own == clear ? 'Canvas' : own;"
        " return [body.color, getComputedStyle(mark).backgroundColor] })()"
    )
    assert (_luminance(paper) > 0.5) == (scheme == "light")
    light, dark = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 7  # WCAG 2.2, 1.4.6: enhanced contrast


def _luminance(colour: str) -> float:
    """Return the relative luminance of `rgb(…)` (WCAG 2.2)."""
    parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_hostile_names_run_nothing(watched: tuple[Any, list[str]], tmp_path: Path) -> None:
    page, bad = watched
    page.goto(written(tmp_path, text=HOSTILE).as_uri())
    assert page.locator("script, img, iframe").count() == 0
    assert "<script>alert(1)</script>" in page.inner_text("body")
    assert bad == []


def test_ten_thousand_rows_open_and_answer(watched: tuple[Any, list[str]], tmp_path: Path) -> None:
    page, bad = watched
    page.goto(written(tmp_path, many=True).as_uri())
    page.locator("nav a").last.click()
    page.locator("#package summary").first.click()
    assert page.locator("tr").count() < 1500
    assert bad == []
