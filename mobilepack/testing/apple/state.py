"""What the stand-in remembers between calls: one JSON file, locked while it is changed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

FAULTS = (
    "no-runtime",  # no simulator runtime is installed
    "boot-hangs",  # `bootstatus` never ends
    "locked",  # iPhones are locked with a passcode
    "tunnel-down",  # iPhones cannot be connected to
    "no-usbmuxd",  # nothing answers where Linux clients look for phones
    "jetsam",  # apps are killed when they have loaded their program
    "container-gone",  # the container that `get_app_container` names is not there
    "silent",  # apps' output does not reach the console
)


@dataclass(slots=True)
class App:
    """An installed app: its bundle and its data container."""

    bundle: str
    data: str


@dataclass(slots=True)
class Machine:
    """A simulator or an iPhone."""

    name: str
    kind: str
    state: str = "Shutdown"
    type: str = ""
    apps: dict[str, App] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """Everything that is remembered.

    Attributes:
        faults: Those of `FAULTS` that are on.
    """

    folder: Path
    xcode: str = "26.6"
    faults: tuple[str, ...] = ()
    machines: dict[str, Machine] = field(default_factory=dict)

    def container(self, udid: str) -> Path:
        """Make a new data container, as an installation does."""
        path = self.folder / udid / "data/Containers/Data/Application" / new_id()
        (path / "Documents").mkdir(parents=True)
        return path

    def bundle(self, udid: str) -> Path:
        """Return where a new bundle goes."""
        return self.folder / udid / "data/Containers/Bundle/Application" / new_id()


def new_id() -> str:
    """Return an identifier as CoreSimulator writes them."""
    return str(uuid.uuid4()).upper()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[State]:
    """Hold the state, and keep what was changed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = _read(folder)
        yield state
        (folder / "state.json").write_text(json.dumps(_plain(state), indent=1))


def _plain(state: State) -> dict[str, object]:
    return {key: value for key, value in asdict(state).items() if key != "folder"}


def _read(folder: Path) -> State:
    path = folder / "state.json"
    if not path.is_file():
        return State(folder)
    data = json.loads(path.read_text())
    machines = {
        udid: Machine(**{**one, "apps": {b: App(**app) for b, app in one["apps"].items()}})
        for udid, one in data["machines"].items()
    }
    return State(folder, data["xcode"], tuple(data["faults"]), machines)
