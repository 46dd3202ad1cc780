"""devices: everything that a package can run on, and the harness for what the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mobilepack.commands.apple import AppleDevice, apple_devices, apple_harness, is_apple
from mobilepack.errors import MissingError, MobilepackError, UsageError, near_misses
from mobilepack.harness.android.adb import Adb, Listed, find_adb, is_address
from mobilepack.harness.android.app import PREFIX, AppHarness
from mobilepack.harness.android.cores import ALL
from mobilepack.harness.android.facts import DeviceFacts, read_facts
from mobilepack.harness.android.gates import Gate
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.harness.android.store import Store
from mobilepack.harness.base import Harness
from mobilepack.harness.host import HostHarness
from mobilepack.harness.host import discover as discover_host
from mobilepack.harness.lease import holder, leased
from mobilepack.harness.native.local import NativeHarness
from mobilepack.harness.virtual import phones
from mobilepack.harness.virtual.counting import counting

_SELECTORS = ("soc", "model", "abi", "android", "kind")


@dataclass(frozen=True, slots=True)
class AdbServer:
    """Which adb server lists the phones.

    Attributes:
        host: Empty for this machine.
        wait_s: How long to wait for a device that somebody else holds.
        ios_app: App on simulators and iPhones: a path to install, or an identifier.
    """

    host: str = ""
    port: int = 5037
    wait_s: float = 0.0
    ios_app: str | None = None

    def client(self) -> Adb:
        """Return adb for it.

        Raises:
            MissingError: There is no adb program.
        """
        return Adb(find_adb(), host=self.host, port=self.port)


@dataclass(frozen=True, slots=True)
class Found:
    """One device.

    Attributes:
        id: What `-d` takes.
        kind: `host`, `phone`, `virtual`, `simulator` or `iphone`.
        state: `ready`, adb's word for what is wrong, or `stopped`.
        facts: Of a phone that answers.
        holder: Who uses it now, empty if nobody does.
        remedy: What to do about its state.
    """

    id: str
    kind: str
    name: str
    state: str
    facts: DeviceFacts | None = None
    holder: str = ""
    remedy: str = ""

    def value(self, selector: str) -> str:
        """Return what a selector compares with, in lower case."""
        if selector == "kind":
            return self.kind
        return str(getattr(self.facts, selector, None) or "").lower()


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every device, and why a kind of them could not be listed."""

    devices: tuple[Found, ...]
    problems: tuple[str, ...] = field(default=())


def devices(server: AdbServer = AdbServer()) -> Inventory:
    """Return this machine, every phone that adb knows, virtual phones, simulators and iPhones."""
    host = discover_host()[0]
    found = [Found(host.id, "host", host.name, host.state)]
    problems: list[str] = []
    try:
        adb = server.client()
        listed = adb.devices()
    except MobilepackError as err:
        problems.append(f"phones: {err}; {err.next}")
        listed = ()
    known = {one.serial: one for one in phones.phones()}
    seen = {one.serial for one in listed}
    found += [_phone(adb.on(one.serial), one, known) for one in listed]
    for serial, one in known.items():
        if serial not in seen:
            found.append(_virtual(one))
    apple, missing = apple_devices()
    found += [_apple(one) for one in apple]
    return Inventory(tuple(found), (*problems, *missing))


def _apple(one: AppleDevice) -> Found:
    held = holder(one.id)
    return Found(
        one.id, one.kind, one.name, one.state, holder=str(held) if held else "", remedy=one.remedy
    )


def _phone(adb: Adb, listed: Listed, virtual: dict[str, phones.Phone]) -> Found:
    kind = "virtual" if listed.serial in virtual else "phone"
    name = virtual[listed.serial].name if kind == "virtual" else listed.serial
    title = listed.properties.get("model", "").replace("_", " ")
    facts = None
    state, remedy = "ready" if listed.state == "device" else listed.state, listed.remedy
    if state == "ready":
        try:
            facts = read_facts(adb)
            title = facts.model or title
        except MobilepackError as err:
            state, remedy = f"not answering: {err.why}", err.next
    held = holder(listed.serial)
    return Found(name, kind, title, state, facts, str(held) if held else "", remedy)


def _virtual(one: phones.Phone) -> Found:
    state = "ready" if one.running else "stopped"
    remedy = "it is started when it is used" if state == "stopped" else ""
    return Found(one.name, "virtual", f"virtual {one.name} ({one.cpu})", state, remedy=remedy)


def harnesses(
    names: Sequence[str],
    server: AdbServer = AdbServer(),
    *,
    purpose: str,
    count_instructions: bool = False,
    gate: Gate | None = None,
    cores: str = ALL,
) -> tuple[Harness, ...]:
    """Return a harness for every device that the names select, each once.

    Args:
        names: `host`, `native`, a serial, a virtual phone's name (it is started if it does not
            run), `simulator`, a UDID, `all` (every Android phone that is ready), or a selector
            such as `soc=SM8650`; with `app:` before any of these of an Android phone, the plan is
            carried out in the demo app.
        server: For the phones.
        purpose: What others are told who want the same device.
        count_instructions: Count on virtual phones.
        gate: What a real phone must be like before each run.
        cores: Which the native runner on a phone is kept on: `all`, `big`, or a list.

    Raises:
        UsageError: Cores are asked for where there is no phone's native runner.
        MissingError: A name selects nothing.
        RunFailedError: A virtual phone does not start, or adb does not answer.
    """
    chosen: dict[str, Harness] = {}
    for name in names:
        for harness_id, harness in _selected(name, server, purpose, count_instructions, gate):
            chosen.setdefault(harness_id, harness)
            if cores != ALL:
                _keep_on(harness, cores)
    return tuple(chosen.values())


def _keep_on(harness: Harness, cores: str) -> None:
    if not isinstance(harness, AdbHarness):
        raise UsageError(
            "cores-without-phone",
            f"cannot keep {harness.device.id} on the cores {cores}",
            why="only the native runner on an Android phone is kept on cores",
            next="leave --cores out, or name a phone: -d SERIAL",
        )
    harness.keep_on(cores)


def available(server: AdbServer = AdbServer(), *, purpose: str) -> tuple[Harness, ...]:
    """Return a harness for this machine, every running virtual phone and every phone that is ready.

    Devices that somebody else holds are left alone, and nothing is started.
    """
    try:
        adb = server.client()
        listed = [one.serial for one in adb.devices() if one.state == "device"]
    except MobilepackError:
        return (HostHarness(),)
    free = [serial for serial in listed if holder(serial) is None]
    return (HostHarness(), *(_harness(adb.on(serial), server, purpose) for serial in free))


def _selected(
    name: str, server: AdbServer, purpose: str, count: bool, gate: Gate | None
) -> list[tuple[str, Harness]]:
    if name == "host":
        return [(name, HostHarness())]
    if name == "native":
        return [(name, NativeHarness())]
    if is_apple(name):
        wait_s = server.wait_s
        return [(name, apple_harness(name, server.ios_app, purpose=purpose, wait_s=wait_s))]
    if name.startswith(PREFIX):
        apps = (
            AppHarness(server.client().on(one), purpose=purpose, wait_s=server.wait_s, gate=gate)
            for one in phone_serials([name.removeprefix(PREFIX)], server)
        )
        return [(app.device.id, app) for app in apps]
    adb = server.client()
    known = {one.name: one for one in phones.phones()}
    known |= {one.serial: one for one in known.values()}
    if name in known:
        one = known[name]
        phones.start(one, adb)
        wrap = counting(one.cpu) if count else None
        return [(one.serial, _harness(adb.on(one.serial), server, purpose, wrap=wrap))]
    serials = _serials(name, server, adb)
    return [(serial, _harness(adb.on(serial), server, purpose, gate=gate)) for serial in serials]


def phone_serials(names: Sequence[str], server: AdbServer = AdbServer()) -> tuple[str, ...]:
    """Return the serials that names select, each once; virtual phones are started.

    Args:
        names: As for `harnesses`, but for phones alone; none means the only one that is ready.
        server: For the phones.

    Raises:
        MissingError: A name selects nothing, or none was given and there is not exactly one phone.
        RunFailedError: A virtual phone does not start, or adb does not answer.
    """
    adb = server.client()
    if not names:
        return (_only(adb),)
    known = {one.name: one for one in phones.phones()}
    known |= {one.serial: one for one in known.values()}
    chosen: dict[str, None] = {}
    for name in names:
        if name in known:
            phones.start(known[name], adb)
            chosen[known[name].serial] = None
        else:
            chosen |= dict.fromkeys(_serials(name, server, adb))
    return tuple(chosen)


def _only(adb: Adb) -> str:
    ready = [one.serial for one in adb.devices() if not one.remedy]
    if len(ready) == 1:
        return ready[0]
    raise MissingError(
        "no-phone" if not ready else "several-phones",
        "cannot tell which phone is meant",
        why=f"attached and ready: {', '.join(ready) or 'none'}",
        next="name one: -d SERIAL (mobilepack devices lists them)",
    )


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A phone from which our files were removed.

    Attributes:
        freed_bytes: What they took; None if the phone does not tell.
    """

    device: str
    freed_bytes: int | None


def clean(serial: str, server: AdbServer = AdbServer()) -> Cleaned:
    """Remove every program, runner and leftover of a run from a phone; apps keep theirs.

    Raises:
        RunFailedError: Somebody uses the phone, or it is gone.
    """
    with leased(serial, "clean", server.wait_s):
        store = Store(server.client().on(serial))
        freed = store.bytes()
        store.clean()
    return Cleaned(serial, freed)


def _harness(adb: Adb, server: AdbServer, purpose: str, **more: object) -> AdbHarness:
    return AdbHarness(adb, purpose=purpose, wait_s=server.wait_s, **more)  # type: ignore[arg-type]


def _serials(name: str, server: AdbServer, adb: Adb) -> list[str]:
    if is_address(name):
        adb.reach(name)
    listed = {one.serial: one for one in adb.devices()}
    if name in listed:
        if listed[name].remedy:
            raise MissingError(
                "device-not-ready",
                f"{name} cannot be used",
                why=f"adb says it is {listed[name].state}",
                next=listed[name].remedy,
            )
        return [name]
    selector, equals, wanted = name.partition("=")
    if name != "all" and not (equals and selector in _SELECTORS):
        raise _unknown(name, list(listed))
    every = [one for one in devices(server).devices if one.facts is not None]
    matching = [
        one.facts.serial
        for one in every
        if one.facts and (name == "all" or one.value(selector) == wanted.lower())
    ]
    if not matching:
        raise _unknown(name, [f"{selector}={one.value(selector)}" for one in every] or [])
    return matching


def _unknown(name: str, known: list[str]) -> MissingError:
    options = ["host", *[one.name for one in phones.phones()], *known]
    return MissingError(
        "unknown-device",
        f"cannot run on the device {name!r}",
        why=near_misses(name, options),
        next="mobilepack devices lists them; a selector is one of "
        + ", ".join(f"{selector}=…" for selector in _SELECTORS),
    )
