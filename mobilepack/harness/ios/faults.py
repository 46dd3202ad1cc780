"""What Apple's tools, go-ios and pymobiledevice3 say when something is wrong, and what to do.

Texts are matched, not codes alone: simctl ends with 149 for every wrong state, devicectl with 1 for
everything. docs/devices/ios.md lists the codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mobilepack.errors import MissingError, MobilepackError, RunFailedError
from mobilepack.process import Finished

_QUOTED = 400
_USAGE = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        pattern: Regular expression in what the tool prints.
        code: Of the error.
        next: What to do.
        kind: Class of the error.
    """

    pattern: str
    code: str
    next: str
    kind: type[MobilepackError] = RunFailedError


FAULTS = (
    Fault(
        r"could not be, unlocked|reason: Locked|DeviceLocked|PasswordProtected"
        r"|Device is password protected",
        "phone-locked",
        "unlock the phone and leave it unlocked; Settings, Display, Auto-Lock: Never for a lab",
    ),
    Fault(
        r"unable to find utility|requires Xcode, but active developer directory",
        "no-xcode",
        "install Xcode 15 or newer (16 for consoles), then: sudo xcode-select -s "
        "/Applications/Xcode.app",
        MissingError,
    ),
    Fault(
        r"Invalid runtime|No runtime",
        "no-simulator-runtime",
        "xcodebuild -downloadPlatform iOS",
        MissingError,
    ),
    Fault(
        r"Invalid device type",
        "simulator-type",
        "xcrun simctl list devicetypes names those that there are",
        MissingError,
    ),
    Fault(
        r"Invalid device|specified device was not found|Device '.*' not found"
        r"|no device matching udid",
        "unknown-device",
        "mobilepack devices lists them",
        MissingError,
    ),
    Fault(
        r"either not installed|FBSOpenApplicationServiceErrorDomain, code=4"
        r"|ApplicationLookupFailed|No app with bundle ID",
        "app-not-installed",
        "name a built app: --app MobilepackDemo.app (mobilepack app ios OUT makes the project)",
        MissingError,
    ),
    Fault(
        r"needs an active tunnel|tunnel not running|InvalidService",
        "tunnel-down",
        "start go-ios' tunnel on the lab host: ios tunnel start --userspace; then: ios image auto",
    ),
    Fault(
        r"connect to tunneld|Failed to start service\. Possible reasons",
        "tunnel-down",
        "on the lab host: pymobiledevice3 mounter auto-mount; for iOS 17.0 to 17.3 also: "
        "sudo pymobiledevice3 remote tunneld",
    ),
    Fault(
        r"dial unix \S*: connect|connect to usbmuxd socket",
        "no-usbmuxd",
        "install and start usbmuxd (apt install usbmuxd), plug the phone in, trust this host",
        MissingError,
    ),
    Fault(
        r"connection to this device could not be established|CoreDeviceError error (4|1011)\b"
        r"|connection refused|no such host",
        "phone-unreachable",
        "check the cable, unlock the phone, trust this computer, switch developer mode on",
    ),
    Fault(
        r"Usage: ios --version|Usage: pymobiledevice3 ",
        "tool-version",
        "tested with go-ios 1.2.0 and pymobiledevice3 11.45.0: install one of these",
        MissingError,
    ),
    Fault(
        r"[Uu]nknown option|Unrecognized subcommand|Missing expected argument|Unexpected argument",
        "xcode-version",
        "tested with Xcode 15.4, 26.6 and 27.0; report this with `xcodebuild -version`",
        MissingError,
    ),
)


def fault(done: Finished, what: str) -> MobilepackError:
    """Return the error for a tool that failed.

    Args:
        done: How it ended.
        what: What could not be done.
    """
    said = " ".join((done.stderr or done.stdout).split())
    tool = " ".join(done.argv[:3])
    if done.timed_out:
        advice = "try it by hand; a Simulator that hangs: xcrun simctl shutdown all"
        return RunFailedError("tool-timeout", what, why=f"{tool}: {done.ending}", next=advice)
    why = f"{tool}: {done.ending}: {said[:_QUOTED] or 'it says nothing'}"
    for one in FAULTS:
        if re.search(one.pattern, said):
            return one.kind(one.code, what, why=why, next=one.next)
    return RunFailedError("tool-failed", what, why=why, next="run it by hand to see more")
