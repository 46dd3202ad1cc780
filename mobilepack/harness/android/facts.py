"""What a phone says about itself, from the output of its own commands.

Every parser is tolerant: a line that is missing or has another form yields `unknown` (None), never
a zero. Formats: AOSP 10 to 15 (`dumpsys battery`, `dumpsys thermalservice`), toybox (`df -k`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mobilepack.harness.android.adb import Adb

STORE = "/data/local/tmp"
"""The folder that adb's user may write to and run programs from."""

_PROPERTY = re.compile(r"^\[(?P<name>[^\]]+)\]: \[(?P<value>.*)\]$", re.MULTILINE)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(?P<value>-?[\d.]+), mType=(?P<type>-?\d+), mName=(?P<name>[^,]*)"
)
_CURRENT = "Current temperatures from HAL"
_THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_SOC_KEYS = ("ro.soc.model", "ro.board.platform", "ro.hardware")
_KINDS = {0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 9: "npu"}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What decides whether a package can run on a phone and whether its timings count.

    Attributes:
        soc: `ro.soc.model`, such as SM8650; else the board's code name; None if it says neither.
        soc_is_model: Whether `soc` is `ro.soc.model`, which Android has since 12.
        abi: First of the ABIs, `arm64-v8a`.
        android: Release, `14`.
        ram_bytes: Total memory.
        free_bytes: Free space where programs are put.
        battery_percent: Charge.
        thermal: Android's thermal status: none, light, moderate, severe and beyond.
        virtual: A phone that is emulated here.
    """

    serial: str
    model: str | None
    soc: str | None
    abi: str | None
    android: str | None
    ram_bytes: int | None
    free_bytes: int | None
    battery_percent: int | None
    battery_c: float | None
    thermal: str | None
    virtual: bool
    soc_is_model: bool = False


def read_facts(adb: Adb) -> DeviceFacts:
    """Ask a device.

    Raises:
        RunFailedError: It is gone or does not answer in time.
    """
    properties = parse_properties(adb.ask(["getprop"]))
    battery = adb.ask(["dumpsys", "battery"])
    charge = parse_battery(battery)
    return DeviceFacts(
        serial=adb.serial,
        model=properties.get("ro.product.model"),
        soc=next((properties[key] for key in _SOC_KEYS if properties.get(key)), None),
        abi=properties.get("ro.product.cpu.abi"),
        android=properties.get("ro.build.version.release"),
        ram_bytes=parse_memory(adb.ask(["cat", "/proc/meminfo"])),
        free_bytes=parse_free(adb.ask(["df", "-k", STORE])),
        battery_percent=charge[0],
        battery_c=charge[1],
        thermal=parse_thermal_status(adb.ask(["dumpsys", "thermalservice"])),
        virtual=is_virtual(properties),
        soc_is_model=bool(properties.get(_SOC_KEYS[0])),
    )


def parse_properties(text: str) -> dict[str, str]:
    """Return the properties that `getprop` lists; empty ones are left out."""
    return {match["name"]: match["value"] for match in _PROPERTY.finditer(text) if match["value"]}


def is_virtual(properties: Mapping[str, str]) -> bool:
    """Tell an emulated phone: ours, Android's emulator, or a cloud one."""
    marks = ("ro.mobilepack.virtual", "ro.kernel.qemu", "ro.boot.qemu")
    return any(properties.get(mark) == "1" for mark in marks)


def parse_memory(text: str) -> int | None:
    """Return MemTotal of /proc/meminfo in bytes."""
    match = re.search(r"^MemTotal:\s*(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def parse_free(text: str) -> int | None:
    """Return the available bytes of the one file system that `df -k` lists."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= 6 and words[3].isdecimal():
            return int(words[3]) * 1024
    return None


def parse_battery(text: str) -> tuple[int | None, float | None]:
    """Return charge in percent and temperature in °C of `dumpsys battery`.

    The charge is `level` of `scale`; the temperature is in tenths of a degree. A board that says
    `present: false` has neither, whatever it prints.
    """
    if re.search(r"^\s*present: false\s*$", text, re.MULTILINE):
        return None, None
    found = dict(re.findall(r"^\s*(level|scale|temperature): (-?\d+)\s*$", text, re.MULTILINE))
    level, scale = found.get("level"), int(found.get("scale", "100"))
    percent = round(100 * int(level) / scale) if level is not None and scale > 0 else None
    tenths = found.get("temperature")
    return percent, None if tenths is None else int(tenths) / 10


def parse_thermal_status(text: str) -> str | None:
    """Return the word for `Thermal Status: N` of `dumpsys thermalservice`."""
    match = re.search(r"^\s*Thermal Status: (\d+)\s*$", text, re.MULTILINE)
    if match is None or int(match[1]) >= len(_THERMAL_STATUS):
        return None
    return _THERMAL_STATUS[int(match[1])]


def parse_temperatures(text: str) -> dict[str, float]:
    """Return °C by kind and name (`cpu cpu0`) of the current block of `dumpsys thermalservice`.

    The block "Cached temperatures" before it can be hours old; a phone that has only that one
    yields nothing. Sensors that a phone names and lacks read exactly 0.0 and are left out.
    """
    _, found, current = text.partition(_CURRENT)
    if not found:
        return {}
    block = current.split("Current cooling devices")[0]
    return {
        f"{_KINDS.get(int(match['type']), 'other')} {match['name']}": float(match["value"])
        for match in _TEMPERATURE.finditer(block)
        if float(match["value"]) != 0.0
    }
