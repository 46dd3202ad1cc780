"""Write the report of a package: what its checks and timings prove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack import __version__
from mobilepack.contract.base import write_atomically
from mobilepack.contract.package import open_package
from mobilepack.errors import UsageError
from mobilepack.report.findings import Finding, findings
from mobilepack.report.html import render_html
from mobilepack.report.runs import read_runs

FILE = "report.html"


@dataclass(frozen=True, slots=True)
class ReportResult:
    """The report and its first section.

    Attributes:
        path: The page that was written.
    """

    path: Path
    findings: tuple[Finding, ...]


def report(package: Path, out: Path | None = None) -> ReportResult:
    """Read the newest runs of a package and write report.html.

    Args:
        package: A package, or an output folder that holds one.
        out: File to write instead of `<package>/report.html`.

    Raises:
        MissingError: There is no package.
        UsageError: The package or a result file is damaged, or the page cannot be written.
    """
    opened = open_package(package)
    runs = read_runs(opened.root, opened.manifest)
    found = findings(opened.manifest, runs)
    path = out or opened.root / FILE
    page = render_html(opened.manifest, runs, found, __version__)
    try:
        write_atomically(path, page)
    except OSError as err:
        raise UsageError(
            "unwritable-report",
            f"cannot write {path}",
            why=str(err),
            next="choose another file with --html",
        ) from err
    return ReportResult(path, found)
