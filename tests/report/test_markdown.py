"""The Markdown summary holds the verdict and cannot be broken by what it quotes."""

from __future__ import annotations

from pathlib import Path

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.verify import verify
from mobilepack.contract.manifest import Manifest
from mobilepack.report.findings import findings
from mobilepack.report.markdown import render_markdown
from mobilepack.report.runs import read_runs
from mobilepack.testing import FakeHarness
from tests.packages import toy_package


def _summary(root: Path, manifest: Manifest) -> str:
    runs = read_runs(root, manifest)
    return render_markdown(manifest, runs, findings(manifest, runs), "1.2.3")


def test_it_shows_parity_and_speed_in_tables(tmp_path: Path) -> None:
    root = toy_package(tmp_path / "p", quantised=True)
    verify(root, harness=FakeHarness())
    bench(root, BenchOptions(prompt_tokens=(8,), gen_tokens=(4,)), harness=FakeHarness())
    text = _summary(root, Manifest.read(root / "manifest.json"))
    assert "✅ passed | program on host | eager quantised | shortest: prefill of 1" in text
    assert "| pp8 | 8000000.0 ± 0.0 |" in text
    assert "not a phone's numbers" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ✅")}
    assert widths == {6, 14}  # the rows' table, the waterfall's


def test_a_package_that_nobody_ran_says_so(tmp_path: Path) -> None:
    root = toy_package(tmp_path / "p")
    text = _summary(root, Manifest.read(root / "manifest.json"))
    assert "⏸️ not run no check of this build" in text


def test_what_it_quotes_cannot_break_it(tmp_path: Path) -> None:
    root = toy_package(tmp_path / "p")
    manifest = Manifest.read(root / "manifest.json")
    model = manifest.plan.model.model_copy(update={"source": "a|b\n# <script>*x*"})
    plan = manifest.plan.model_copy(update={"model": model})
    text = _summary(root, manifest.model_copy(update={"plan": plan}))
    assert "<script>" not in text
    assert text.splitlines()[0] == r"## a\|b \# &lt;script&gt;\*x\* for xnnpack"
