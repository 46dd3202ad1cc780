"""What a harness needs of an app on a simulator or an iPhone, whatever leads there."""

from __future__ import annotations

import plistlib
import re
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mobilepack.errors import UsageError
from mobilepack.harness.base import Device
from mobilepack.process import Child

BUNDLE_ID = "mobilepack.demo"
"""Of ios_demo; an app of the user's own has another."""

FOLDER = "Documents/mobilepack"
"""In the app's data container: plans, results, and programs by checksum."""

PACKAGES = "Documents/packages"
"""Packages for the app's chat, each in a folder named by what is in it; the app deletes the others
when it starts, for not every transport can delete."""

CURRENT = "Documents/package.txt"
"""Names the folder of the package that the chat uses; written last."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
_BUNDLES = (".app", ".ipa")

Tell = Callable[[str], None]
"""Hears what is being done."""


@dataclass(frozen=True, slots=True)
class IosApp:
    """The app that carries out plans.

    Attributes:
        bundle_id: Its identifier.
        path: A `.app` or `.ipa` that is installed first; None if it is installed already.
    """

    bundle_id: str = BUNDLE_ID
    path: Path | None = None

    @classmethod
    def named(cls, name: str | None) -> IosApp:
        """Return the app of a path or of an identifier; None: the demo app, installed already.

        Raises:
            UsageError: It is neither.
        """
        if name is None:
            return cls()
        path = Path(name)
        if not path.exists() and _IDENTIFIER.fullmatch(name) and path.suffix not in _BUNDLES:
            return cls(name)
        return cls.at(path)

    @classmethod
    def at(cls, path: Path) -> IosApp:
        """Return the app at a path.

        Raises:
            UsageError: It is no app.
        """
        try:
            return cls(str(_info(path)["CFBundleIdentifier"]), path.resolve())
        except (OSError, KeyError, StopIteration, ValueError, zipfile.BadZipFile) as err:
            raise UsageError(
                "no-app",
                f"{path} is not an iOS app",
                why=f"it has no Info.plist with an identifier ({type(err).__name__}: {err})",
                next="name the .app that xcodebuild made, or a signed .ipa",
            ) from err


def _info(path: Path) -> dict[str, object]:
    if path.is_dir():
        raw = (path / "Info.plist").read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            name = next(n for n in names if n.count("/") == 2 and n.endswith(".app/Info.plist"))
            raw = archive.read(name)
    found: dict[str, object] = plistlib.loads(raw)
    return found


class AppContainer(Protocol):
    """An installed app: its data container, and its process.

    Attributes:
        poll_s: How often a file of it is asked for while it runs.
        console: Whether `launch`'s child ends with the app.
    """

    @property
    def poll_s(self) -> float: ...

    @property
    def console(self) -> bool: ...

    def push(self, source: Path, there: str) -> None:
        """Copy a file or folder to a path in the data container.

        Raises:
            RunFailedError: It cannot be copied.
        """

    def read(self, there: str) -> bytes | None:
        """Return a file of the data container, None if it is not there."""

    def launch(self, arguments: tuple[str, ...], log: Path) -> Child:
        """Start the app, ending one that runs already."""

    def terminate(self) -> None:
        """End the app; no error if it does not run."""

    def post_mortem(self) -> str:
        """Return how the app died, empty if nothing tells."""


class AppPhone(Protocol):
    """A simulator or an iPhone."""

    @property
    def device(self) -> Device: ...

    def ready(self, tell: Tell) -> AbstractContextManager[AppContainer]:
        """Make it ready (create, boot, install) and undo that at the end."""
