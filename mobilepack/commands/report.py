"""Write the report of a package: what its checks and timings prove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.base import write_atomically
from mobilepack.contract.package import open_package
from mobilepack.errors import UsageError
from mobilepack.report.findings import Finding, findings
from mobilepack.report.html import render_html
from mobilepack.report.markdown import render_markdown
from mobilepack.report.runs import read_runs
from mobilepack.version import __version__

HTML, MARKDOWN = "report.html", "report.md"


@dataclass(frozen=True, slots=True)
class ReportResult:
    """The report and its first section.

    Attributes:
        html: The page that was written, for people.
        markdown: The summary that was written, for a pull request or a job.
    """

    html: Path
    markdown: Path
    findings: tuple[Finding, ...]


def report(package: Path, html: Path | None = None, markdown: Path | None = None) -> ReportResult:
    """Read the newest runs of a package and write the page and the summary.

    Args:
        package: A package, or an output folder that holds one.
        html: File to write instead of `<package>/report.html`.
        markdown: File to write instead of `<package>/report.md`.

    Raises:
        MissingError: There is no package.
        UsageError: The package or a result file is damaged, or a file cannot be written.
    """
    opened = open_package(package)
    runs = read_runs(opened.root, opened.manifest)
    found = findings(opened.manifest, runs)
    result = ReportResult(html or opened.root / HTML, markdown or opened.root / MARKDOWN, found)
    _write(result.html, render_html(opened.manifest, runs, found, __version__))
    _write(result.markdown, render_markdown(opened.manifest, runs, found, __version__))
    return result


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as err:
        raise UsageError(
            "unwritable-report",
            f"cannot write {path}",
            why=str(err),
            next="choose another file with --html or --markdown",
        ) from err
