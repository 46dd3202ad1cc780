"""What may have changed a timing: temperatures, charge, frequencies, power modes, memory."""

from __future__ import annotations

import re

from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.facts import (
    parse_battery,
    parse_temperatures,
    parse_thermal_status,
)

UNKNOWN = "unknown"
_CPUS = "/sys/devices/system/cpu"
# One shell command instead of three for each core; prints `cpu0 current governor`.
_FREQUENCIES = (
    f"for c in {_CPUS}/cpu[0-9]*; do f=$c/cpufreq; "
    'echo "${c##*/} $(cat $f/scaling_cur_freq 2>/dev/null) $(cat $f/scaling_governor 2>/dev/null)";'
    " done"
)


def read_conditions(adb: Adb, suffix: str) -> dict[str, str]:
    """Return conditions as text by name; what a device does not tell is `unknown`.

    Args:
        suffix: `_before` or `_after`.

    Raises:
        RunFailedError: The device is gone.
    """
    thermal = adb.ask(["dumpsys", "thermalservice"])
    percent, celsius = parse_battery(adb.ask(["dumpsys", "battery"]))
    temperatures = parse_temperatures(thermal)
    frequencies, governors = parse_frequencies(adb.ask(["sh", "-c", _FREQUENCIES]))
    low_power = adb.ask(["settings", "get", "global", "low_power"])
    found = {
        "thermal_status": parse_thermal_status(thermal),
        "temperatures_c": "; ".join(f"{k} {v:g}" for k, v in sorted(temperatures.items())),
        "battery_percent": percent,
        "battery_c": celsius,
        "frequencies_khz": frequencies,
        "governors": governors,
        "low_power_mode": low_power if low_power in ("0", "1") else None,
    }
    return {
        name + suffix: UNKNOWN if value is None or value == "" else str(value)
        for name, value in found.items()
    }


def parse_frequencies(text: str) -> tuple[str, str]:
    """Return current frequencies in kHz by core, and the governors, as text; empty if untold."""
    lines = [match.groups() for match in re.finditer(r"^(cpu\d+) (\d+) (\S+)$", text, re.MULTILINE)]
    ordered = sorted(lines, key=lambda line: int(line[0][3:]))
    frequencies = " ".join(f"{core}={khz}" for core, khz, _ in ordered)
    return frequencies, " ".join(sorted({governor for *_, governor in ordered}))
