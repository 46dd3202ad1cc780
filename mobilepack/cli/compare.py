"""`mobilepack compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, packages, render
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.metrics.changes import Change

_EXACT = 1e15  # integers up to here print without an exponent


@click.command(
    epilog="""\b
Example
  mobilepack compare out/yesterday/xnnpack out/today/xnnpack
  mobilepack compare out/yesterday/xnnpack out/today/xnnpack --gate gate.toml --junit gate.xml
"""
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--gate",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Rules in TOML; ends with exit code 3 and the rows when one is broken.",
)
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the gate's rows as JUnit XML.",
)
@click.option(
    "--sarif",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the broken rows as SARIF.",
)
@click.option("--all", "every", is_flag=True, help="Print what did not change, too.")
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    before: Path,
    after: Path,
    gate: Path | None,
    junit: Path | None,
    sarif: Path | None,
    every: bool,
    as_json: bool,
) -> int:
    """Show what changed from one package, run or campaign to another, and gate it.

    Compares sizes, memory, parity, instructions, times and task scores of the newest runs of each
    device. Times come with the 95 % interval of their ratio. Only VALID times can break a gate;
    sizes, parity and instruction counts always can.
    """
    from mobilepack.commands.compare import compare
    from mobilepack.contract.gate import Gate
    from mobilepack.report.gates import write_junit, write_sarif

    for file in (junit, sarif):
        if file is not None:
            options.make_folder(file.parent)
    rules = None if gate is None else Gate.load(gate)
    result = compare(packages.existing(before), packages.existing(after), rules)
    if junit is not None:
        write_junit(junit, result.judged, "mobilepack compare")
    if sarif is not None:
        write_sarif(sarif, result.judged, gate)
    if as_json:
        render.document("compare", {**render.plain(result), "passed": result.passed})
        return ExitCode.OK if result.passed else ExitCode.CHECK_FAILED
    print_changes(result.changes, every=every)
    for judged in result.judged:
        render.line(f"{render.status(judged.outcome)}  {judged.metric}: {judged.why}")
    result.raise_if_failed()
    return ExitCode.OK


def print_changes(found: Sequence[Change], *, every: bool) -> None:
    """Print a table of figures before and after; those that are the same only with `every`."""
    shown = [one for one in found if every or one.status != "same"]
    if shown:
        header = ("figure", "before", "after", "change", "95 % interval", "")
        render.table(header, [_row(one) for one in shown])
    same = len(found) - len(shown)
    render.line(f"{same} figures are the same" if same else "every figure is shown")


def _row(one: Change) -> tuple[str, ...]:
    interval = ""
    if one.low is not None and one.high is not None and one.low != one.high:
        interval = f"{one.low - 1:+.1%} to {one.high - 1:+.1%}"
    remark = one.status if not one.distrust else f"{one.status}; {one.distrust.split(':')[0]}"
    change = "" if one.ratio is None else f"{one.ratio - 1:+.2%}"
    return (
        one.name,
        _value(one.before, one.unit),
        _value(one.after, one.unit),
        change,
        interval,
        remark,
    )


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "bytes":
        return render.size(int(value))
    whole = value == int(value) and abs(value) < _EXACT
    text = f"{int(value):,}" if whole else f"{value:.4g}"
    return f"{text} {unit}".rstrip()
