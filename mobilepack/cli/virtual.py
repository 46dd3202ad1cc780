"""`mobilepack virtual`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.cli.progress import steps

if TYPE_CHECKING:
    from mobilepack.harness.android.adb import Adb
    from mobilepack.harness.virtual.phones import Phone


@click.group(
    epilog="""\b
Example
  mobilepack virtual create lab --cpu cortex-a53
  mobilepack virtual start lab
  mobilepack verify -d lab
  mobilepack bench -d lab -p 32 -n 8 -r 2 --warmups 1
  mobilepack virtual delete lab
"""
)
def command() -> None:
    """Make and run virtual ARM64 phones on this machine.

    A phone is the real adbd of Debian's arm64 under qemu, in namespaces of its own and without
    root, reachable by any adb on this machine's loopback. The first one fetches about 60 MB of
    Debian packages into the user's cache, each checked against the archive's signature. It proves
    numerics and counts instructions; its times say nothing about a phone's.
    """


@command.command(
    epilog="""\b
Example
  mobilepack virtual create lab --cpu cortex-a53
"""
)
@click.argument("name")
@click.option(
    "--cpu",
    default="cortex-a76",
    show_default=True,
    metavar="CPU",
    help="Processor that qemu emulates; XNNPACK chooses its kernels by it.",
)
@options.json_option
def create(name: str, cpu: str, as_json: bool) -> None:
    """Make a phone; `start`, or any verb's -d, starts it."""
    from mobilepack.harness.virtual import phones

    with steps("virtual", quiet=as_json) as progress:
        progress.step("fetch and shape the phone's system (once)", 0, 1)
        made = phones.create(name, cpu)
    _say(made, f"{made.cpu}, will answer as {made.serial}; not running", as_json=as_json)


@command.command(
    epilog="""\b
Example
  mobilepack virtual start lab
"""
)
@click.argument("name")
@options.json_option
def start(name: str, as_json: bool) -> None:
    """Start a phone and wait until adb reaches it."""
    from mobilepack.harness.virtual import phones

    with steps("virtual", quiet=as_json) as progress:
        progress.step(f"start {name}", 0, 1)
        started = phones.start(phones.phone(name), _adb())
    _say(started.phone, f"running as {started.phone.serial}", as_json=as_json)


@command.command(
    epilog="""\b
Example
  mobilepack virtual stop lab
"""
)
@click.argument("name")
@options.json_option
def stop(name: str, as_json: bool) -> None:
    """Stop a phone; its files stay."""
    from mobilepack.harness.virtual import phones

    one = phones.phone(name)
    phones.stop(one, _adb())
    _say(one, "stopped", as_json=as_json)


@command.command(
    epilog="""\b
Example
  mobilepack virtual delete lab
"""
)
@click.argument("name")
@options.json_option
def delete(name: str, as_json: bool) -> None:
    """Stop a phone and remove it."""
    from mobilepack.harness.virtual import phones

    one = phones.phone(name)
    phones.delete(one, _adb())
    _say(one, "deleted", as_json=as_json)


@command.command(
    name="list",
    epilog="""\b
Example
  mobilepack virtual list
""",
)
@options.json_option
def list_phones(as_json: bool) -> None:
    """List the phones and which of them run."""
    from mobilepack.harness.virtual import phones

    found = phones.phones()
    if as_json:
        render.document("virtual", {"phones": [_plain(one) for one in found]})
        return
    if not found:
        render.line("no virtual phones; mobilepack virtual create NAME makes one")
        return
    rows = [(p.name, p.cpu, p.serial, "running" if p.running else "stopped") for p in found]
    render.table(("name", "cpu", "serial", "state"), rows)


def _say(one: Phone, what: str, *, as_json: bool) -> None:
    if as_json:
        render.document("virtual", _plain(one))
    else:
        render.line(f"{one.name}: {what}")


def _plain(one: Phone) -> dict[str, object]:
    return {**one.model_dump(), "serial": one.serial, "running": one.running}


def _adb() -> Adb:
    from mobilepack.commands.devices import AdbServer

    return AdbServer().client()
