"""Whether a phone went away in the middle of something, even if it is back by now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb

_BOOT = "/proc/sys/kernel/random/boot_id"
# What adb says, or we conclude, when a transport breaks under a command.
_SUSPECT = ("runtime-died", "run-garbled", "no-results", "adb-failed", "device-timeout")


@dataclass(frozen=True, slots=True)
class Presence:
    """One stay of a phone at its adb server.

    Attributes:
        state: adb's word, `absent` if the server does not know it.
        transport: adb counts connections; another number means that it was lost in between.
        boot: The kernel's name of this boot, empty if the phone does not tell.
    """

    state: str
    transport: str = ""
    boot: str = ""


def presence(adb: Adb) -> Presence:
    """Look for a phone; never fails."""
    with contextlib.suppress(RunFailedError):
        for one in adb.devices():
            if one.serial == adb.serial:
                boot = adb.ask(["cat", _BOOT]) if one.state == "device" else ""
                return Presence(one.state, one.properties.get("transport_id", ""), boot)
    return Presence("absent")


@contextlib.contextmanager
def knowing(adb: Adb) -> Iterator[None]:
    """Name the phone as the cause of what fails inside if it went away.

    Raises:
        RunFailedError: `device-gone` or `device-rebooted` in place of what followed from it.
    """
    before = presence(adb)
    try:
        yield
    except RunFailedError as err:
        if err.code not in _SUSPECT:
            raise
        after = presence(adb)
        if after == before:
            raise
        raise _gone(adb.serial, before, after, err) from err


def _gone(serial: str, before: Presence, after: Presence, err: RunFailedError) -> RunFailedError:
    kept = "what was measured is kept: run it again and only the rest is done"
    if after.boot and before.boot and after.boot != before.boot:
        return RunFailedError(
            "device-rebooted",
            f"{serial} rebooted in the middle of a run",
            why=f"its kernel started anew; {err.why}",
            next=f"look at its heat and memory; {kept}",
        )
    back = " again, over another connection" if after.state == "device" else ""
    return RunFailedError(
        "device-gone",
        f"{serial} went away in the middle of a run",
        why=f"adb says it is {after.state}{back}; {err.why}",
        next=f"check cable, network and battery; {kept}",
    )
