"""`mobilepack verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, packages, render
from mobilepack.cli.progress import steps
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.verify import VerifyResult
    from mobilepack.contract.parity import Measured, ParityRow

# Printed of rows that nothing limits; parity.json and the report have all values of all rows.
WELL_KNOWN = ("sqnr_db", "kl_mean", "kl_max", "top1_agreement", "ppl_ratio")


@click.command(
    epilog="""\b
Example
  mobilepack verify
  mobilepack verify out/mine/xnnpack --max-ppl-ratio 1.1 --json
"""
)
@packages.package_argument
@options.device_option
@options.threads_option
@click.option(
    "--decode-steps",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="TOKENS",
    help="Decode steps per check, at most.",
)
@click.option(
    "--max-ppl-ratio",
    type=click.FloatRange(min=1.0),
    metavar="RATIO",
    help="Fail when PPL(program) / PPL(eager fp32) is above this; without it, it is reported.",
)
@options.timeout_option(3600)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    package: Path | None,
    device: str,
    threads: int,
    decode_steps: int,
    max_ppl_ratio: float | None,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Prove that a package computes what PyTorch computes.

    Climbs the parity ladder: eager fp32, eager quantised, the program on this machine; short and
    long prompts, decoding through the KV cache, two prompts in a row. Ends with exit code 3 when a
    comparison is outside its tolerance. Without PACKAGE it takes out/xnnpack, and builds the
    embedded model there first if need be.
    """
    from mobilepack.commands.verify import VerifyOptions, verify

    chosen = packages.existing_or_built(package, quiet=as_json)
    asked = VerifyOptions(threads, max_ppl_ratio, decode_steps, timeout_s)
    with steps("verify", quiet=as_json) as progress:
        result = verify(chosen, asked, on_progress=lambda p: progress.step(p.item, p.done, p.total))
    if as_json:
        render.document("verify", render.plain(result))
        return ExitCode.OK if result.parity.passed else ExitCode.CHECK_FAILED
    print_result(result)
    result.raise_if_failed()
    return ExitCode.OK


def print_result(result: VerifyResult) -> None:
    """Print every row of the ladder with its values and limits, then the verdict."""
    for row in result.parity.rows:
        print_row(row)
    verdict = "passed" if result.parity.passed else "failed"
    culprit = f": the first rung that broke a tolerance is {result.parity.culprit!r}"
    render.line(f"verify {render.status(verdict)}{'' if result.parity.passed else culprit}")
    render.line(f"results: {result.folder / 'parity.json'}")


def print_row(row: ParityRow) -> None:
    """Print one comparison."""
    against = f" against {row.against}" if row.against else ""
    positions = f", {row.compared} positions" if row.compared else ""
    render.line(f"{render.status(row.status)}  {row.rung}{against}: {row.check}{positions}")
    if shown := metrics_shown(row):
        render.line("    " + "  ".join(metric_text(metric) for metric in shown))
    if row.reason:
        render.line(f"    {row.reason}")


def metrics_shown(row: ParityRow) -> list[Measured]:
    """Return what was judged; of a row that was only reported, what people know, or all."""
    judged = [metric for metric in row.metrics if metric.limit is not None]
    return judged or [m for m in row.metrics if m.name in WELL_KNOWN] or list(row.metrics)


def metric_text(metric: Measured) -> str:
    """Return `name value (limit)`, marked where the limit is broken."""
    text = f"{metric.name} {metric.value:.4g}"
    if metric.limit is not None:
        text += f" ({'≤' if metric.better == 'lower' else '≥'} {metric.limit:.4g})"
    return text if metric.ok else click.style(text + " broken", fg="red")
