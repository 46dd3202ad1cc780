"""Putting the stand-in on PATH, and apps to run on it."""

from __future__ import annotations

import json
import os
import plistlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilepack.testing.apple.state import FAULTS, Machine, opened

ROOT = Path(__file__).parents[3]
BUNDLE_ID = "mobilepack.demo"


@dataclass(frozen=True, slots=True)
class StandInXcode:
    """A folder with a `bin/xcrun` and what it remembers.

    Attributes:
        folder: Empty or absent at first.
        xcode: Version that it speaks for, one of `grammar.versions()`.
    """

    folder: Path
    xcode: str = "26.6"

    def install(self, *faults: str) -> Path:
        """Write `bin/xcrun` and begin anew; return its path.

        Args:
            faults: What goes wrong, of `state.FAULTS`.
        """
        unknown = set(faults) - set(FAULTS)
        if unknown:
            raise ValueError(f"no such faults: {sorted(unknown)}")
        with opened(self.state) as state:
            state.xcode, state.faults = self.xcode, tuple(faults)
        return self._program("xcrun", "mobilepack.testing.apple", str(self.state))

    def lab(self, program: str) -> Path:
        """Write `bin/ios` or `bin/pymobiledevice3`, which reach the same iPhones; return its path.

        Faults are those of the last `install`.
        """
        return self._program(program, "mobilepack.testing.apple.lab", str(self.state), program)

    def _program(self, name: str, module: str, *words: str) -> Path:
        tool = self.folder / "bin" / name
        line = shlex.join([sys.executable, "-S", "-P", "-m", module, *words])
        path = f"PYTHONPATH={shlex.quote(str(ROOT))}"
        write_program(tool, f'#!/bin/sh\n{path} exec {line} "$@"\n')
        return tool

    @property
    def state(self) -> Path:
        """Where it remembers."""
        return self.folder / "state"

    def add_iphone(self, udid: str = "00008130-001C2D3E4F50001A", name: str = "Lab iPhone") -> str:
        """Plug in an iPhone; return its UDID."""
        with opened(self.state) as state:
            state.machines[udid] = Machine(name, "iphone", "Booted", "iPhone16,1")
        return udid

    def machines(self) -> dict[str, Machine]:
        """Return every simulator and iPhone by UDID."""
        with opened(self.state) as state:
            return dict(state.machines)

    def calls(self) -> list[list[str]]:
        """Return the words of every call so far."""
        lines = (self.state / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def write_program(path: Path, text: str) -> None:
    """Write a file that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def app_bundle(folder: Path, argv: Sequence[str], env: dict[str, str] | None = None) -> Path:
    """Make an app bundle whose executable runs a command of this machine.

    Args:
        folder: The bundle goes below it.
        argv: Command; the arguments of the launch are appended.
        env: Added to the bare environment that apps get.
    """
    bundle = folder / "MobilepackDemo.app"
    bundle.mkdir(parents=True, exist_ok=True)
    info = {"CFBundleIdentifier": BUNDLE_ID, "CFBundleExecutable": "MobilepackDemo"}
    (bundle / "Info.plist").write_bytes(plistlib.dumps(info))
    words = [f"{key}={value}" for key, value in (env or {}).items()]
    line = shlex.join(["env", *words, *argv])
    write_program(bundle / "MobilepackDemo", f'#!/bin/sh\nexec {line} "$@"\n')
    return bundle


def toy_app(folder: Path, *arguments: str) -> Path:
    """Make a bundle whose program is `ToyModel`, carried out by Python.

    Args:
        folder: The bundle goes below it.
        arguments: See `toy_app.py`: how it misbehaves.
    """
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    argv = [sys.executable, "-P", "-m", "mobilepack.testing.apple.toy_app", *arguments]
    return app_bundle(folder, argv, {"PYTHONPATH": os.pathsep.join(paths)})
