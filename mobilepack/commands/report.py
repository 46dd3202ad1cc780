"""Write the report of a package: what its checks and timings prove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.base import write_atomically
from mobilepack.contract.package import open_package
from mobilepack.errors import UsageError
from mobilepack.report.devices import placed_on
from mobilepack.report.findings import Finding, findings
from mobilepack.report.html import render_html
from mobilepack.report.hud import hud
from mobilepack.report.junit import junit_of_runs
from mobilepack.report.llama_bench import llama_bench
from mobilepack.report.markdown import render_markdown
from mobilepack.report.runs import read_runs
from mobilepack.version import __version__

HTML, MARKDOWN = "report.html", "report.md"


@dataclass(frozen=True, slots=True)
class Exports:
    """Files in other tools' formats, each None if nobody wants it.

    Attributes:
        junit: The ladder's rows as JUnit XML, for CI.
        llama_bench: The timings as `llama-bench -o json` writes them.
        hud: Every figure as a record of PyTorch's benchmark database.
    """

    junit: Path | None = None
    llama_bench: Path | None = None
    hud: Path | None = None


@dataclass(frozen=True, slots=True)
class ReportResult:
    """The report and its first section.

    Attributes:
        html: The page that was written, for people.
        markdown: The summary that was written, for a pull request or a job.
        exports: The other files that were written.
    """

    html: Path
    markdown: Path
    findings: tuple[Finding, ...]
    exports: Exports


def report(
    package: Path,
    html: Path | None = None,
    markdown: Path | None = None,
    exports: Exports = Exports(),
) -> ReportResult:
    """Read the newest runs of a package and write the page, the summary and the exports.

    A result file that cannot be read is a finding, not an error.

    Args:
        package: A package, or an output folder that holds one.
        html: File to write instead of `<package>/report.html`.
        markdown: File to write instead of `<package>/report.md`.
        exports: What else to write.

    Raises:
        MissingError: There is no package.
        UsageError: The package is damaged, or a file cannot be written.
    """
    opened = open_package(package)
    manifest, runs = opened.manifest, read_runs(opened.root, opened.manifest)
    placed, placed_found = placed_on(opened)
    found = (*findings(manifest, runs), *placed_found)
    page, summary = html or opened.root / HTML, markdown or opened.root / MARKDOWN
    _write(page, render_html(manifest, runs, found, __version__, placed))
    _write(summary, render_markdown(manifest, runs, found, __version__))
    if exports.junit is not None:
        _write(exports.junit, junit_of_runs(runs))
    if exports.llama_bench is not None:
        _write(exports.llama_bench, llama_bench(manifest, runs))
    if exports.hud is not None:
        _write(exports.hud, hud(manifest, runs))
    return ReportResult(page, summary, found, exports)


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as err:
        raise UsageError(
            "unwritable-report",
            f"cannot write {path}",
            why=str(err),
            next="choose another file with --html, --markdown or the option that named it",
        ) from err
