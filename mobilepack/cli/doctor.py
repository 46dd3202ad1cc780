"""`mobilepack doctor`."""

from __future__ import annotations

import click

from mobilepack.cli import options, render
from mobilepack.errors import ExitCode


@click.command(
    epilog="""\b
Example
  mobilepack doctor
  mobilepack doctor --json > doctor.json
"""
)
@options.json_option
def command(as_json: bool) -> int:
    """Say what works on this machine and what is missing.

    Ends with exit code 5 when something that a verb needs is missing.
    """
    from mobilepack.commands.doctor import doctor

    diagnosis = doctor()
    if as_json:
        checks = render.plain(diagnosis.checks)
        render.document("doctor", {"complete": diagnosis.complete, "checks": checks})
    else:
        for check in diagnosis.checks:
            render.line(f"{render.status(check.status)}  {check.name}: {check.found}")
            render.line(f"    for: {check.enables}")
            if check.next:
                render.line(f"    next: {check.next}")
    return ExitCode.OK if diagnosis.complete else ExitCode.MISSING
