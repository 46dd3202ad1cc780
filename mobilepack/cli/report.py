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
  mobilepack report out/mine/xnnpack --junit parity.xml --llama-bench bench.json
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
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the rows of the ladder as JUnit XML.",
)
@click.option(
    "--llama-bench",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the timings in llama-bench's own JSON.",
)
@click.option(
    "--hud",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every figure as a record of PyTorch's benchmark HUD.",
)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    package: Path | None,
    html: Path | None,
    markdown: Path | None,
    junit: Path | None,
    llama_bench: Path | None,
    hud: Path | None,
    as_json: bool,
) -> None:
    """Write the report of a package's checks and timings.

    Takes the newest of each device and prints what they prove. What was not checked or not timed is
    listed as `not run`, a result that cannot be read as `unreadable`.
    """
    from mobilepack.commands.report import Exports, report

    exports = Exports(junit, llama_bench, hud)
    for file in (html, markdown, junit, llama_bench, hud):
        if file is not None:
            options.make_folder(file.parent)
    result = report(packages.existing(package), html, markdown, exports)
    if as_json:
        render.document("report", render.plain(result))
        return
    for finding in result.findings:
        render.line(f"{render.status(finding.status)}  {finding.text}")
    render.line(f"report: {result.html}")
    render.line(f"summary: {result.markdown}")
    for name, file in (("junit", junit), ("llama-bench", llama_bench), ("hud", hud)):
        if file is not None:
            render.line(f"{name}: {file}")
