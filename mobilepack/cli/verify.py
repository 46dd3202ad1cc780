"""`mobilepack verify`."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, packages, render
from mobilepack.cli.device_options import (
    HOST,
    Devices,
    Done,
    conclude,
    device_options,
    on_each,
)
from mobilepack.cli.explanation import print_explanation
from mobilepack.cli.progress import steps
from mobilepack.cli.waterfall import merged, print_waterfall
from mobilepack.errors import CheckFailedError, ExitCode, MissingError

if TYPE_CHECKING:
    from mobilepack.commands.exported import When
    from mobilepack.commands.verify import Ladder, VerifyOptions, VerifyResult
    from mobilepack.contract.parity import Measured, ParityRow
    from mobilepack.harness.base import Harness, Progress

# Printed of rows that nothing limits; parity.json and the report have all values of all rows.
WELL_KNOWN = ("sqnr_db", "kl_mean", "kl_max", "top1_agreement", "ppl_ratio")


@click.command(
    epilog="""\b
Example
  mobilepack verify
  mobilepack verify out/mine/xnnpack out/mine/qnn --max-ppl-ratio 1.1 --json
  mobilepack verify -d host -d 14141JEC204776
  mobilepack verify out/mine/xnnpack --explain
"""
)
@packages.package_arguments
@functools.partial(device_options, everywhere=True)
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
    help="Fail when PPL(program) / PPL(eager fp32) is above this; without it the target file says.",
)
@click.option(
    "--limits",
    type=click.Path(path_type=Path),
    metavar="TOML",
    help="Target file whose [parity] limits hold; without it those of the package's own target.",
)
@click.option(
    "--exported",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Run the exported graph in PyTorch too; auto: if it takes about a minute at most.",
)
@click.option(
    "--questions",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="Questions with one right answer that every rung is asked; without it, 8 for models of"
    " at most 20 million parameters.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Find the stage, layer and operator that is at fault, and why it probably is.",
)
@click.option("--rows", is_flag=True, help="Print every comparison, not only what broke.")
@options.timeout_option(3600)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    named: tuple[Path, ...],
    devices: Devices,
    threads: int,
    decode_steps: int,
    max_ppl_ratio: float | None,
    limits: Path | None,
    exported: When,
    questions: int | None,
    explain: bool,
    rows: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Prove that a package computes what PyTorch computes.

    Climbs down the parity ladder: eager fp32, eager quantised, the exported graph, the program on
    this machine (QNN's in the HTP emulator, Core ML's in the MIL interpreter), virtual phones that
    run and phones that are attached (with -d: only those named), all on the same tokens: short and
    long prompts, decoding through the KV cache, two prompts in a row. Prints which rung lost how
    much. Ends with exit code 3 when a comparison is outside its tolerance. Without PACKAGE it takes
    out/xnnpack, and builds the embedded model there first if need be.
    """
    from mobilepack.commands.verify import VerifyOptions

    folders = [packages.existing_or_built(one, quiet=as_json) for one in named or (None,)]
    asked = VerifyOptions(
        threads=threads,
        max_ppl_ratio=max_ppl_ratio,
        decode_steps=decode_steps,
        timeout_s=timeout_s,
        exported=exported,
        questions=questions,
        limits=limits,
    )
    harnesses = devices.everywhere("verify")
    several = len(folders) > 1
    outcomes: list[Done[VerifyResult]] = []
    for folder in folders:
        how = _How(asked, bool(devices.names), explain)
        ladder, done = _verified(folder, how, harnesses, quiet=as_json)
        outcomes += [replace(d, device=f"{folder} on {d.device}") if several else d for d in done]
        if not as_json:
            _print_waterfall(ladder, done, folder if several else None)

    def shown(result: VerifyResult) -> int:
        if not as_json:
            print_result(result, rows=rows)
            if result.explanation is not None:
                print_explanation(result.explanation)
        if sum(one.required for one in outcomes) == 1 and not as_json:
            result.raise_if_failed()
        return ExitCode.OK if result.passed else CheckFailedError.exit_code

    return conclude("verify", outcomes, shown, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _How:
    """What was asked for; `named`: the devices, which then must be there."""

    options: VerifyOptions
    named: bool
    explain: bool


def _verified(
    package: Path, how: _How, harnesses: tuple[Harness, ...], *, quiet: bool
) -> tuple[Ladder, list[Done[VerifyResult]]]:
    """Verify one package on every device."""
    from mobilepack.commands.verify import Ladder

    with steps("verify", quiet=quiet) as progress:
        ladder = Ladder(package, how.options)

        def work(harness: Harness) -> VerifyResult:
            before = f"{harness.device.id}: " if len(harnesses) > 1 else ""

            def tell(now: Progress) -> None:
                progress.step(before + now.item if now.item else "", now.done, now.total)

            return ladder.on(harness, tell)

        outcomes = on_each(harnesses, work)
    if not how.named:
        outcomes = [replace(one, required=not _absent(one)) for one in outcomes]
    return ladder, _explained(ladder, outcomes) if how.explain else outcomes


def _absent(one: Done[VerifyResult]) -> bool:
    """Whether a device that nobody named is another one than the package's, or somebody else's."""
    from mobilepack.harness.lease import BUSY

    missing = isinstance(one.error, MissingError) or (one.error and one.error.code == BUSY)
    return one.device != HOST and bool(missing)


def _explained(ladder: Ladder, outcomes: list[Done[VerifyResult]]) -> list[Done[VerifyResult]]:
    """Explain the first device that failed, or the first one."""
    from mobilepack.commands.explain import explain

    ran = [one for one in outcomes if one.result is not None]
    ran.sort(key=lambda one: one.result is not None and one.result.parity.passed)
    for one in ran[:1]:
        if one.result is not None:
            found = replace(one, result=explain(ladder, one.result))
            return [found if other is one else other for other in outcomes]
    return outcomes


def _print_waterfall(
    ladder: Ladder, outcomes: list[Done[VerifyResult]], package: Path | None
) -> None:
    levels = [one.result.parity.levels for one in outcomes if one.result is not None]
    levels += [parity.levels for parity in ladder.broken.values()]
    if not levels:
        return
    if package is not None:
        render.line(f"{package}:")
    print_waterfall(merged(levels))


def print_result(result: VerifyResult, *, rows: bool = False) -> None:
    """Print the rows that broke (or all) with values and limits, then the verdict."""
    every = result.parity.rows
    for row in every:
        if rows or row.status == "failed":
            print_row(row)
    if not rows:
        counts = Counter(row.status for row in every)
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        render.line(f"{len(every)} comparisons: {told} (--rows lists them)")
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
