"""`mobilepack devices`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.cli.device_options import Devices, conclude, on_each, phone_options
from mobilepack.errors import UsageError

if TYPE_CHECKING:
    from mobilepack.commands.devices import Cleaned, Found

UNKNOWN = "unknown"


@click.command(
    epilog="""\b
Example
  mobilepack devices
  mobilepack devices --adb-host lab-7 --json
  mobilepack devices --clean -d 14141JEC204776
"""
)
@click.option(
    "--clean",
    "cleaning",
    is_flag=True,
    help="Remove every file that mobilepack put on the phones that -d names; apps keep theirs.",
)
@phone_options
@options.json_option
def command(devices: Devices, cleaning: bool, as_json: bool) -> int:
    """List what packages can run on: this machine, phones, virtual phones, simulators.

    The first column is what -d takes. What a phone does not tell is `unknown`, never a zero.
    """
    if cleaning:
        return _clean(devices, as_json=as_json)
    if devices.names:
        raise UsageError(
            "device-without-clean",
            "cannot list one device",
            why="-d says whose files --clean removes",
            next="mobilepack devices lists all of them",
        )
    _list(devices, as_json=as_json)
    return 0


def _clean(devices: Devices, *, as_json: bool) -> int:
    from mobilepack.commands.devices import clean, phone_serials

    serials = phone_serials(devices.names, devices.server)
    outcomes = on_each(serials, lambda serial: clean(serial, devices.server), str)
    show = functools.partial(_show_cleaned, as_json=as_json)
    return conclude("devices-clean", outcomes, show, as_json=as_json)


def _show_cleaned(done: Cleaned, *, as_json: bool) -> int:
    if not as_json:
        render.line(f"{done.device}: removed our files ({_bytes(done.freed_bytes)})")
    return 0


def _list(chosen: Devices, *, as_json: bool) -> None:
    from mobilepack.commands.devices import devices

    inventory = devices(chosen.server)
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
