"""`mobilepack ios`."""

from __future__ import annotations

from pathlib import Path

import click

from mobilepack.cli import options, render
from mobilepack.cli.progress import steps


@click.group(
    epilog="""\b
Example
  mobilepack ios record xcode-26.6.json
"""
)
def command() -> None:
    """Write down what Apple's tools answer on this Mac, for tests elsewhere."""


@command.command(
    epilog="""\b
Example
  mobilepack ios record xcode-26.6.json
  mobilepack ios record quick.json --no-simulator
"""
)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--simulator/--no-simulator",
    default=True,
    show_default=True,
    help="Also make a simulator, boot it and delete it (a minute or two).",
)
@options.json_option
def record(out: Path, simulator: bool, as_json: bool) -> None:
    """Run the commands that harnesses give, and some that fail, and write the answers to OUT.

    Identifiers, names of devices, user and home are replaced; read the file before you share it.
    """
    from mobilepack.contract.base import write_atomically
    from mobilepack.harness.ios.record import recorded
    from mobilepack.harness.ios.tool import find_xcrun

    with steps("record", quiet=as_json) as progress:
        transcript = recorded(
            find_xcrun(), lambda words: progress.step(words, 0, 1), simulator=simulator
        )
    write_atomically(out, transcript.to_json())
    if as_json:
        render.document("ios-record", {"file": str(out), "calls": len(transcript.calls)})
        return
    calls = len(transcript.calls)
    render.line(f"{out}: {calls} commands of Xcode {transcript.xcode}, {transcript.kind}")
