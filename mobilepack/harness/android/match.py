"""Whether a phone can run a package at all: asked before anything is pushed."""

from __future__ import annotations

from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.errors import MissingError
from mobilepack.harness.android.facts import DeviceFacts
from mobilepack.harness.native.build import Machine

ABIS: dict[str, Machine] = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}
"""What programs run on, and which machine's runner that is; x86_64 are emulators."""


def soc_of(package: Path) -> str | None:
    """Return the chip that a package's program is compiled for, None where any will do.

    Raises:
        UsageError: Its manifest cannot be read.
    """
    manifest = package / MANIFEST
    return Manifest.read(manifest).plan.soc_model if manifest.is_file() else None


def check_match(facts: DeviceFacts, soc_model: str | None) -> Machine:
    """Refuse a phone that a program was not compiled for; return whose runner it takes.

    A phone that does not say which SoC it has (`ro.soc.model` came with Android 12) is let pass:
    the delegate itself refuses a program of another chip.

    Args:
        facts: Of the phone.
        soc_model: The chip that the program is compiled for, None where any will do.

    Raises:
        MissingError: Its ABI or SoC is another one.
    """
    machine = ABIS.get(facts.abi or "")
    if machine is None:
        raise MissingError(
            "device-abi",
            f"{facts.serial} cannot run this package",
            why=f"its ABI is {facts.abi or 'unknown'}, the program runs on {' and '.join(ABIS)}",
            next="choose a 64-bit ARM phone: mobilepack devices",
        )
    if soc_model is None or not facts.soc_is_model or facts.soc is None:
        return machine
    # A phone can name a bin of the chip: SM8650-AC.
    if facts.soc.upper().partition("-")[0] != soc_model.upper():
        raise MissingError(
            "device-soc",
            f"{facts.serial} cannot run this package",
            why=f"it has {facts.soc}, the program is compiled for {soc_model}",
            next=f"choose another phone (-d soc={soc_model}), or build for this one: "
            f"mobilepack build MODEL --target qnn --soc-model {facts.soc.partition('-')[0]}",
        )
    return machine
