"""Whether a phone is in a state in which its times mean something, and waiting until it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.facts import (
    parse_battery,
    parse_temperatures,
    parse_thermal_status,
)

_POLL_S = 5.0
_COOL = ("none", "light", None)  # None: the phone does not tell


@dataclass(frozen=True, slots=True)
class Gate:
    """What a phone must be like before it is timed; what it does not tell is let pass.

    Attributes:
        max_c: Largest temperature of battery and skin, °C. 37 is the best public protocol's start
            gate (react-native-executorch #1363).
        min_battery: Smallest charge in percent; below it phones save power.
        wait_s: How long to wait for the phone to cool down.
    """

    max_c: float = 37.0
    min_battery: int = 20
    wait_s: float = 600.0


def wait_until_fit(
    adb: Adb,
    gate: Gate,
    tell: Callable[[str], None],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Wait until a phone passes a gate; return what was found, for the record.

    Args:
        adb: With the device's serial.
        gate: What it must be like.
        tell: Hears what is waited for.
        now: Seconds of a monotonic clock.
        sleep: Waits so many seconds.

    Raises:
        RunFailedError: It is not fit: too little charge, power saving, or too hot for too long.
    """
    begin = now()
    _check_power(adb, gate)
    while (hot := _heat(adb, gate)) and now() - begin < gate.wait_s:
        tell(f"waiting for the phone to cool down: {hot}")
        sleep(_POLL_S)
    if hot:
        raise RunFailedError(
            "phone-hot",
            f"{adb.serial} is too hot to be timed",
            why=f"{hot} after {now() - begin:.0f} s",
            next="let it cool down, off the charger and out of the sun, or: --max-celsius",
        )
    return {"start_gate": f"at most {gate.max_c:g} °C", "waited_s": f"{now() - begin:.0f}"}


def _check_power(adb: Adb, gate: Gate) -> None:
    percent, _ = parse_battery(adb.ask(["dumpsys", "battery"]))
    if percent is not None and percent < gate.min_battery:
        raise RunFailedError(
            "phone-battery",
            f"{adb.serial} has too little charge to be timed",
            why=f"{percent} %, at least {gate.min_battery} % are asked for",
            next="charge it",
        )
    if adb.ask(["settings", "get", "global", "low_power"]) == "1":
        raise RunFailedError(
            "phone-low-power",
            f"{adb.serial} is in low-power mode",
            why="it runs its cores slower then",
            next=f"adb -s {adb.serial} shell settings put global low_power 0",
        )


def _heat(adb: Adb, gate: Gate) -> str:
    """Return what is too hot, empty if nothing is."""
    thermal = adb.ask(["dumpsys", "thermalservice"])
    status = parse_thermal_status(thermal)
    if status not in _COOL:
        return f"thermal status {status}"
    _, battery = parse_battery(adb.ask(["dumpsys", "battery"]))
    found = {
        name: value
        for name, value in parse_temperatures(thermal).items()
        if name.startswith(("battery ", "skin "))
    }
    if battery is not None:
        found["battery"] = battery
    above = {name: value for name, value in found.items() if value > gate.max_c}
    return ", ".join(f"{name} {value:g} °C" for name, value in sorted(above.items()))
