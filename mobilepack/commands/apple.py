"""Simulators and iPhones: listing them, and the harness for what the user names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mobilepack.errors import MissingError, MobilepackError, near_misses
from mobilepack.harness.ios.container import AppPhone, IosApp
from mobilepack.harness.ios.devicectl import CONSOLE_SINCE, Devicectl, DevicectlPhone
from mobilepack.harness.ios.goios import GoIos
from mobilepack.harness.ios.harness import AppHarness
from mobilepack.harness.ios.lab import LabAppPhone, LabTool, is_udid
from mobilepack.harness.ios.pymobile import PyMobileDevice
from mobilepack.harness.ios.simulator import NEW, Simctl, SimulatorPhone
from mobilepack.harness.ios.tool import (
    Tool,
    find_go_ios,
    find_pymobiledevice3,
    find_xcrun,
    xcode_version,
)

_SIMULATOR_UDID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")


@dataclass(frozen=True, slots=True)
class AppleDevice:
    """A simulator or iPhone.

    Attributes:
        id: What `-d` takes.
        kind: `simulator` or `iphone`.
        remedy: What to do about its state.
    """

    id: str
    kind: str
    name: str
    state: str
    remedy: str = ""


def apple_devices() -> tuple[tuple[AppleDevice, ...], tuple[str, ...]]:
    """Return every simulator and iPhone, and why a kind of them could not be listed."""
    try:
        xcrun = find_xcrun()
    except MissingError as err:
        return _lab_phones(err)
    found: list[AppleDevice] = []
    problems: list[str] = []
    for kind, listed in (("simulators", _simulators), ("iPhones", _iphones)):
        try:
            found += listed(xcrun)
        except MobilepackError as err:
            problems.append(f"{kind}: {err}; {err.next}")
    return tuple(found), tuple(problems)


def apple_tools() -> tuple[str, str]:
    """Return what leads to Apple's devices from this machine, and what to do if nothing does."""
    try:
        xcrun = find_xcrun()
        version = ".".join(str(part) for part in xcode_version(xcrun))
    except MobilepackError as no_xcode:
        try:
            name, _ = _lab()
        except MissingError as err:
            return f"no Xcode, and {err.why}", err.next
        return f"{name}: iPhones; no simulators, {no_xcode.why}", ""
    return f"Xcode {version}: simulators and iPhones", ""


def _simulators(xcrun: Tool) -> list[AppleDevice]:
    listing = Simctl(xcrun.under("simctl")).listing()
    rows = [AppleDevice(NEW, "simulator", "a new one, deleted at the end", "ready")]
    if not any(one.isAvailable for one in listing.runtimes):
        advice = "xcodebuild -downloadPlatform iOS"
        rows = [AppleDevice(NEW, "simulator", "a new one", "no runtime", advice)]
    for one in listing.simulators():
        state = {"Booted": "ready", "Shutdown": "stopped"}.get(one.state, one.state)
        remedy = "it is booted when it is used" if state == "stopped" else ""
        if not one.isAvailable:
            state, remedy = "no runtime", "xcodebuild -downloadPlatform iOS"
        title = f"{one.name}, {one.runtime}"
        rows.append(AppleDevice(one.udid, "simulator", title, state, remedy))
    return rows


def _iphones(xcrun: Tool) -> list[AppleDevice]:
    phones = Devicectl(xcrun.under("devicectl")).phones()
    return [
        AppleDevice(
            one.udid, "iphone", f"{one.name}, {one.model}, iOS {one.system}", one.state, one.remedy
        )
        for one in phones
    ]


def _lab_phones(no_xcode: MissingError) -> tuple[tuple[AppleDevice, ...], tuple[str, ...]]:
    problems = (f"simulators: {no_xcode}; {no_xcode.next}",)
    try:
        phones = _lab()[1].phones()
    except MobilepackError as err:
        return (), (*problems, f"iPhones: {err}; {err.next}")
    rows = (
        AppleDevice(one.udid, "iphone", f"{one.model}, iOS {one.system}".strip(", "), "ready")
        for one in phones
    )
    return tuple(rows), problems


def is_apple(name: str) -> bool:
    """Whether a device's name can only be a simulator's or an iPhone's."""
    new = name == NEW or name.startswith(f"{NEW}:")
    return new or is_udid(name) or bool(_SIMULATOR_UDID.fullmatch(name))


def apple_harness(name: str, app: str | None, *, purpose: str, wait_s: float = 0.0) -> AppHarness:
    """Return the harness of a simulator or iPhone.

    Args:
        name: `simulator`, `simulator:iPhone 16`, or a UDID.
        app: A `.app` or `.ipa` to install, or the identifier of an app that is installed; None:
            the demo app, installed already.
        purpose: What others are told who want the device.
        wait_s: How long to wait for another user of it.

    Raises:
        MissingError: No tool, or no such device.
        UsageError: The app is none.
    """
    return AppHarness(_phone(name, IosApp.named(app)), purpose=purpose, wait_s=wait_s)


def _phone(name: str, app: IosApp) -> AppPhone:
    if name == NEW or name.startswith(f"{NEW}:"):
        _need_path(app)
        wanted = name.removeprefix(NEW).removeprefix(":")
        return SimulatorPhone(Simctl(find_xcrun().under("simctl")), app, type_name=wanted)
    if _SIMULATOR_UDID.fullmatch(name):
        return SimulatorPhone(Simctl(find_xcrun().under("simctl")), app, udid=name)
    try:
        xcrun = find_xcrun()
    except MissingError:
        return _lab_phone(name, app)
    ctl = Devicectl(xcrun.under("devicectl"), console=xcode_version(xcrun) >= CONSOLE_SINCE)
    known = {one.udid: one for one in ctl.phones()}
    if name not in known:
        raise _unknown(name, list(known))
    return DevicectlPhone(ctl, app, known[name])


def _lab_phone(name: str, app: IosApp) -> AppPhone:
    _, tool = _lab()
    known = {one.udid: one for one in tool.phones()}
    if name not in known:
        raise _unknown(name, list(known))
    return LabAppPhone(tool, app, known[name])


def _lab() -> tuple[str, LabTool]:
    """Return what leads to iPhones without a Mac, and its name: go-ios if it is there.

    Raises:
        MissingError: Neither is installed.
    """
    if tool := find_go_ios():
        return f"go-ios at {tool.argv[0]}", GoIos(tool)
    if tool := find_pymobiledevice3():
        return f"pymobiledevice3 at {tool.argv[0]}", PyMobileDevice(tool)
    raise MissingError(
        "no-go-ios",
        "cannot reach iPhones from this machine",
        why="neither go-ios (`ios`) nor pymobiledevice3 is on PATH",
        next="npm install -g go-ios; MOBILEPACK_GO_IOS names its program if it is not on PATH",
    )


def _need_path(app: IosApp) -> None:
    if app.path is None:
        raise MissingError(
            "no-app",
            "a new simulator has no app that could carry out a plan",
            why="no app was named, and only an installed one can be left out",
            next="mobilepack app ios OUT, build it (its README.md), then: --app MobilepackDemo.app",
        )


def _unknown(name: str, known: list[str]) -> MissingError:
    return MissingError(
        "unknown-device",
        f"there is no iPhone {name}",
        why=near_misses(name, known) if known else "none is attached",
        next="mobilepack devices lists them",
    )
