"""`mobilepack devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.cli.device_options import adb_options

if TYPE_CHECKING:
    from mobilepack.commands.devices import Found

UNKNOWN = "unknown"


@click.command(
    epilog="""\b
Example
  mobilepack devices
  mobilepack devices --adb-host lab-7 --json
"""
)
@adb_options
@options.json_option
def command(adb_host: str, adb_port: int, as_json: bool) -> None:
    """List what packages can run on: this machine, phones over adb, virtual phones.

    The first column is what -d takes. What a phone does not tell is `unknown`, never a zero.
    """
    from mobilepack.commands.devices import AdbServer, devices

    inventory = devices(AdbServer(adb_host, adb_port))
    if as_json:
        render.document("devices", render.plain(inventory))
        return
    header = ("device", "kind", "name", "state", "soc", "abi", "android")
    more = ("RAM", "free", "battery", "thermal", "used by")
    render.table((*header, *more), [_row(one) for one in inventory.devices])
    for one in inventory.devices:
        if one.remedy:
            render.line(f"{one.id}: {one.remedy}")
    for problem in inventory.problems:
        render.line(f"not listed: {problem}")


def _row(one: Found) -> tuple[str, ...]:
    facts = one.facts
    if facts is None:
        return (one.id, one.kind, one.name, one.state, *[""] * 7, one.holder)
    battery = UNKNOWN if facts.battery_percent is None else f"{facts.battery_percent} %"
    return (
        *(one.id, one.kind, one.name, one.state),
        *(facts.soc or UNKNOWN, facts.abi or UNKNOWN, facts.android or UNKNOWN),
        *(_bytes(facts.ram_bytes), _bytes(facts.free_bytes), battery, facts.thermal or UNKNOWN),
        one.holder,
    )


def _bytes(count: int | None) -> str:
    return UNKNOWN if count is None else render.size(count)
