"""`mobilepack verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, packages, render
from mobilepack.cli.device_options import Devices, conclude, device_options, on_each
from mobilepack.cli.progress import steps
from mobilepack.errors import CheckFailedError, ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.verify import VerifyResult
    from mobilepack.contract.parity import Measured, ParityRow
    from mobilepack.harness.base import Harness, Progress

# Printed of rows that nothing limits; parity.json and the report have all values of all rows.
WELL_KNOWN = ("sqnr_db", "kl_mean", "kl_max", "top1_agreement", "ppl_ratio")


@click.command(
    epilog="""\b
Example
  mobilepack verify
  mobilepack verify out/mine/xnnpack --max-ppl-ratio 1.1 --json
  mobilepack verify -d 14141JEC204776
"""
)
@packages.package_argument
@device_options
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
    devices: Devices,
    threads: int,
    decode_steps: int,
    max_ppl_ratio: float | None,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Prove that a package computes what PyTorch computes.

    Climbs the parity ladder: eager fp32, eager quantised, the program on this machine, and with -d
    on phones, each held against this machine too; short and long prompts, decoding through the KV
    cache, two prompts in a row. Ends with exit code 3 when a
    comparison is outside its tolerance. Without PACKAGE it takes out/xnnpack, and builds the
    embedded model there first if need be.
    """
    from mobilepack.commands.verify import VerifyOptions, verify

    chosen = packages.existing_or_built(package, quiet=as_json)
    asked = VerifyOptions(threads, max_ppl_ratio, decode_steps, timeout_s)
    harnesses = devices.harnesses("verify")
    with steps("verify", quiet=as_json) as progress:

        def work(harness: Harness) -> VerifyResult:
            before = f"{harness.device.id}: " if len(harnesses) > 1 else ""

            def tell(now: Progress) -> None:
                progress.step(before + now.item if now.item else "", now.done, now.total)

            return verify(chosen, asked, harness=harness, on_progress=tell)

        outcomes = on_each(harnesses, work)

    def shown(result: VerifyResult) -> int:
        if not as_json:
            print_result(result)
        if len(outcomes) == 1 and not as_json:
            result.raise_if_failed()
        return ExitCode.OK if result.parity.passed else CheckFailedError.exit_code

    return conclude("verify", outcomes, shown, as_json=as_json)


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
