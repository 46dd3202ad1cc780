"""`-d` and its companions, and the same work on each device that they select."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from mobilepack.cli import failures, render
from mobilepack.errors import ExitCode, MobilepackError

if TYPE_CHECKING:
    from mobilepack.commands.devices import AdbServer
    from mobilepack.harness.android.gates import Gate
    from mobilepack.harness.base import Harness

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
P = TypeVar("P")
HOST = "host"


@dataclass(frozen=True, slots=True)
class Devices:
    """What the user chose."""

    names: tuple[str, ...]
    adb_host: str
    adb_port: int
    wait_s: float
    ios_app: str | None = None

    @property
    def server(self) -> AdbServer:
        """The adb server to ask."""
        from mobilepack.commands.devices import AdbServer

        return AdbServer(self.adb_host, self.adb_port, self.wait_s, self.ios_app)

    def harnesses(
        self,
        purpose: str,
        *,
        count_instructions: bool = False,
        gate: Gate | None = None,
        cores: str = "all",
    ) -> tuple[Harness, ...]:
        """Return a harness for each device; virtual phones are started.

        Raises:
            MissingError: A name selects nothing.
        """
        from mobilepack.commands.devices import harnesses

        return harnesses(
            self.names,
            self.server,
            purpose=purpose,
            count_instructions=count_instructions,
            gate=gate,
            cores=cores,
        )

    def everywhere(self, purpose: str) -> tuple[Harness, ...]:
        """Return a harness for what was named, else for every device that is ready.

        Raises:
            MissingError: A name selects nothing.
        """
        from mobilepack.commands.devices import available

        return self.harnesses(purpose) if self.names else available(self.server, purpose=purpose)


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What one device brought: a result or an error.

    Attributes:
        required: Whether its error is the command's; not of a device that nobody named and that
            turned out not to be there for this.
    """

    device: str
    result: T | None
    error: MobilepackError | None
    required: bool = True


def _device_id(harness: Any) -> str:
    return str(harness.device.id)


def adb_options(function: F) -> F:
    """Add where the adb server is; the function gets `adb_host` and `adb_port`."""
    function = click.option(
        "--adb-host", default="", metavar="HOST", help="Where the adb server runs, if not here."
    )(function)
    return click.option(
        "--adb-port",
        type=click.IntRange(1, 65535),
        default=5037,
        show_default=True,
        metavar="PORT",
        help="Port of the adb server.",
    )(function)


def device_options(function: F, *, everywhere: bool = False) -> F:
    """Add `-d` and its companions; the function gets them as `devices`.

    Args:
        function: The verb.
        everywhere: Whether it works on every device there is unless some are named, else on this
            machine.
    """
    where = click.option(
        "-d",
        "--device",
        multiple=True,
        default=() if everywhere else (HOST,),
        show_default="every device there is" if everywhere else True,
        metavar="NAME",
        help="Where to run: `host`, a serial, a virtual phone, `all` phones, soc=… model=… abi=… "
        "android=…, an iPhone's UDID, `simulator`; app: before an Android phone's runs in the demo "
        "app. May be given several times.",
    )
    return where(_as_devices(function))  # type: ignore[return-value]


def phone_options(function: F) -> F:
    """Add `-d` and its companions for verbs about phones alone; without `-d` no name is given."""
    where = click.option(
        "-d",
        "--device",
        multiple=True,
        metavar="NAME",
        help="A serial, a virtual phone, `all` phones, soc=… model=… abi=… android=…, or a UDID; "
        "may be given several times. Default: the only Android phone that is ready.",
    )
    return where(_as_devices(function))  # type: ignore[return-value]


def _as_devices(function: F) -> Callable[..., Any]:
    @functools.wraps(function)
    def chosen(
        *,
        device: tuple[str, ...],
        adb_host: str,
        adb_port: int,
        wait_s: float,
        ios_app: str | None,
        **others: Any,
    ) -> Any:
        return function(devices=Devices(device, adb_host, adb_port, wait_s, ios_app), **others)

    with_wait = click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Wait so long for a device that somebody else uses.",
    )(adb_options(chosen))
    return click.option(
        "--app",
        "ios_app",
        metavar="APP",
        help="For simulators and iPhones: the built demo app (.app, or a signed .ipa), or the id "
        "of the installed one.",
    )(with_wait)


def on_each(
    items: Sequence[P], work: Callable[[P], T], name_of: Callable[[P], str] = _device_id
) -> list[Done[T]]:
    """Do the same on every device, at once; one that fails does not stop the others.

    Args:
        items: A harness, or another part that knows its device, for each.
        work: What is done with one.
        name_of: Names an item's device; may ask the device.
    """

    def attempt(item: P) -> Done[T]:
        name = type(item).__name__
        try:
            name = name_of(item)
            return Done(name, work(item), None)
        except MobilepackError as err:
            return Done(name, None, err)

    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(attempt, items))


def conclude(verb: str, outcomes: list[Done[T]], show: Callable[[T], int], *, as_json: bool) -> int:
    """Print every device's outcome and return the exit code of the worst.

    Args:
        verb: Kind of the JSON document.
        outcomes: Of `on_each`. Of one device alone, an error is raised and the document is its
            result; of several, the document lists them.
        show: Prints one result, unless `as_json`, and returns its exit code.
        as_json: Whether one JSON document is printed instead.

    Raises:
        MobilepackError: The only device failed.
    """
    required = _without_absent(outcomes)
    if len(required) == 1 and required[0].error is not None:
        raise required[0].error
    codes = []
    for one in required:
        if len(required) > 1 and not as_json:
            render.line(f"{one.device}:")
        if one.error is not None:
            codes.append(int(one.error.exit_code))
            if not as_json:
                failures.show(failures.describe(one.error))
        elif one.result is not None:
            codes.append(show(one.result))
    if as_json and len(outcomes) == 1:
        render.document(verb, render.plain(outcomes[0].result))
    elif as_json:
        render.document(verb, {"devices": [_plain(one) for one in outcomes]})
    return max(codes, default=int(ExitCode.OK))


def _without_absent(outcomes: list[Done[T]]) -> list[Done[T]]:
    """Say which devices were not there for this; return the others."""
    for one in outcomes:
        if not one.required:
            render.message(f"not run  {one.device}: {one.error}")
    return [one for one in outcomes if one.required]


def _plain(one: Done[Any]) -> dict[str, object]:
    error = None if one.error is None else render.plain(failures.describe(one.error))
    result = None if one.result is None else render.plain(one.result)
    found: dict[str, object] = {"device": one.device, "result": result, "error": error}
    return found if one.required else {**found, "required": False}
