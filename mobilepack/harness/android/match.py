"""Whether a phone can run a package at all: asked before anything is pushed."""

from __future__ import annotations

from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.errors import MissingError
from mobilepack.harness.android.facts import DeviceFacts

ABI = "arm64-v8a"


def soc_of(package: Path) -> str | None:
    """Return the chip that a package's program is compiled for, None where any will do.

    Raises:
        UsageError: Its manifest cannot be read.
    """
    manifest = package / MANIFEST
    return Manifest.read(manifest).plan.soc_model if manifest.is_file() else None


def check_match(facts: DeviceFacts, soc_model: str | None) -> None:
    """Refuse a phone that a program was not compiled for.

    A phone that does not say which SoC it has (`ro.soc.model` came with Android 12) is let pass:
    the delegate itself refuses a program of another chip.

    Args:
        facts: Of the phone.
        soc_model: The chip that the program is compiled for, None where any will do.

    Raises:
        MissingError: Its ABI or SoC is another one.
    """
    if facts.abi != ABI:
        raise MissingError(
            "device-abi",
            f"{facts.serial} cannot run this package",
            why=f"its ABI is {facts.abi or 'unknown'}, the program's kernels are {ABI}",
            next="choose a 64-bit ARM phone: mobilepack devices",
        )
    if soc_model is None or not facts.soc_is_model or facts.soc is None:
        return
    # A phone can name a bin of the chip: SM8650-AC.
    if facts.soc.upper().partition("-")[0] != soc_model.upper():
        raise MissingError(
            "device-soc",
            f"{facts.serial} cannot run this package",
            why=f"it has {facts.soc}, the program is compiled for {soc_model}",
            next=f"choose another phone (-d soc={soc_model}), or build for this one: "
            f"mobilepack build MODEL --target qnn --soc-model {facts.soc.partition('-')[0]}",
        )
