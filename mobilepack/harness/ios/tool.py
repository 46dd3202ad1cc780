"""Running Apple's tools and their stand-ins, always within a time limit."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mobilepack.errors import MissingError
from mobilepack.harness.ios.faults import fault
from mobilepack.process import Child, Finished, run

XCRUN_VARIABLE = "MOBILEPACK_XCRUN"
GO_IOS_VARIABLE = "MOBILEPACK_GO_IOS"
PYMOBILEDEVICE3_VARIABLE = "MOBILEPACK_PYMOBILEDEVICE3"
QUICK_S = 60.0
"""simctl's first call of a day starts CoreSimulator's service, which takes tens of seconds."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program with the words that every call begins with.

    Attributes:
        argv: For example `("/usr/bin/xcrun", "simctl")`.
        env: Added to our environment.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def attempt(self, *arguments: str, timeout_s: float = QUICK_S) -> Finished:
        """Run it and return how it ended."""
        return run((*self.argv, *arguments), timeout_s=timeout_s, env=os.environ | self.env)

    def run(self, what: str, *arguments: str, timeout_s: float = QUICK_S) -> str:
        """Run it and return what it printed.

        Args:
            what: What could not be done if it fails.
            arguments: After its own words.
            timeout_s: Then it is stopped.

        Raises:
            RunFailedError: It failed.
            MissingError: Something that it needs is missing.
        """
        done = self.attempt(*arguments, timeout_s=timeout_s)
        if done.returncode != 0 or done.timed_out:
            raise fault(done, what)
        return done.stdout

    def start(self, *arguments: str, log: Path) -> Child:
        """Start it as a child whose lines are read."""
        return Child((*self.argv, *arguments), log=log, env=os.environ | self.env)

    def with_env(self, name: str, value: str) -> Tool:
        """Return it with a variable that every call gets."""
        return Tool(self.argv, {**self.env, name: value})

    def under(self, *words: str) -> Tool:
        """Return it with more words that every call begins with."""
        return Tool((*self.argv, *words), self.env)


def find_xcrun() -> Tool:
    """Return `xcrun`: `$MOBILEPACK_XCRUN`, else the one on PATH.

    Raises:
        MissingError: There is none.
    """
    named = os.environ.get(XCRUN_VARIABLE) or shutil.which("xcrun")
    if named is None:
        raise MissingError(
            "no-xcode",
            "cannot use simulators or Apple's own device tools",
            why="xcrun is not on PATH; it comes with Xcode, which needs a Mac",
            next="use a Mac with Xcode 15 or newer; iPhones alone work on Linux with go-ios "
            "(docs/devices/ios.md)",
        )
    return Tool((named,))


def find_go_ios() -> Tool | None:
    """Return go-ios: `$MOBILEPACK_GO_IOS`, else `ios` on PATH; None without one."""
    return _found(GO_IOS_VARIABLE, "ios")


def find_pymobiledevice3() -> Tool | None:
    """Return it: `$MOBILEPACK_PYMOBILEDEVICE3`, else the one on PATH; None without one."""
    return _found(PYMOBILEDEVICE3_VARIABLE, "pymobiledevice3")


def _found(variable: str, name: str) -> Tool | None:
    path = os.environ.get(variable) or shutil.which(name)
    return Tool((path,)) if path else None


def xcode_version(xcrun: Tool) -> tuple[int, ...]:
    """Return Xcode's version, `(26, 6)`.

    Raises:
        MissingError: Only Apple's command line tools are installed.
    """
    said = xcrun.run("cannot ask for Xcode's version", "xcodebuild", "-version")
    found = re.search(r"Xcode (\d+(?:\.\d+)*)", said)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
