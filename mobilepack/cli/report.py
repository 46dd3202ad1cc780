"""`mobilepack report`."""

from __future__ import annotations

from pathlib import Path

import click

from mobilepack.cli import options, packages, render


@click.command(
    epilog="""\b
Example
  mobilepack report
  mobilepack report out/mine/xnnpack --html mine.html --json
"""
)
@packages.package_argument
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the page goes. Default: report.html in the package.",
)
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the summary for a pull request goes. Default: report.md in the package.",
)
@options.json_option
def command(package: Path | None, html: Path | None, markdown: Path | None, as_json: bool) -> None:
    """Write the report of a package's checks and timings.

    Takes the newest of each device and prints what they prove. What was not checked or not timed is
    listed as `not run`.
    """
    from mobilepack.commands.report import report

    for file in (html, markdown):
        if file is not None:
            options.make_folder(file.parent)
    result = report(packages.existing(package), html, markdown)
    if as_json:
        render.document("report", render.plain(result))
        return
    for finding in result.findings:
        render.line(f"{render.status(finding.status)}  {finding.text}")
    render.line(f"report: {result.html}")
    render.line(f"summary: {result.markdown}")
