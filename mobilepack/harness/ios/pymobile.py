"""iPhones on a Linux host through pymobiledevice3, where it is installed and go-ios is not.

It is GPL: its program is run as any other, nothing of it is imported or depended on.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mobilepack.errors import MobilepackError, RunFailedError
from mobilepack.harness.ios.faults import fault
from mobilepack.harness.ios.lab import INSTALL_S, LabPhone, reports, transfer_s
from mobilepack.harness.ios.tool import Tool
from mobilepack.process import Child

_UDID = "PYMOBILEDEVICE3_UDID"
_ABSENT = "OBJECT_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class PyMobileDevice:
    """pymobiledevice3; see `LabTool`."""

    tool: Tool

    def phones(self) -> tuple[LabPhone, ...]:
        """Return every phone that usbmuxd knows; one on USB and on Wi-Fi counts once.

        Raises:
            MissingError: There is no usbmuxd.
            RunFailedError: What it lists cannot be read.
        """
        text = self.tool.run("cannot list iPhones", "usbmux", "list")
        try:
            rows = [_phone(row) for row in json.loads(text)]
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise RunFailedError(
                "iphone-list",
                "cannot read what pymobiledevice3 lists",
                why=f"{type(err).__name__}: {err}",
                next="tested with pymobiledevice3 11.45.0; try: pymobiledevice3 usbmux list",
            ) from err
        return tuple({one.udid: one for one in rows}.values())

    def install(self, udid: str, app: Path) -> None:
        """Install an app; see `LabTool`."""
        tool = self.tool.with_env(_UDID, udid)
        tool.run(f"cannot install {app}", "apps", "install", str(app), timeout_s=INSTALL_S)

    def container(self, udid: str, bundle_id: str) -> PyMobileContainer:
        """Return an installed app."""
        return PyMobileContainer(self.tool.with_env(_UDID, udid), udid, bundle_id)


def _phone(row: dict[str, str]) -> LabPhone:
    return LabPhone(row["Identifier"], row.get("ProductType", ""), row.get("ProductVersion", ""))


@dataclass(frozen=True, slots=True)
class PyMobileContainer:
    """An app on an iPhone; see `AppContainer`.

    The phone is named by a variable: `launch-application` has no option for it.
    """

    tool: Tool
    udid: str
    bundle_id: str
    console: bool = True
    poll_s: float = 5.0
    known: set[str] = field(default_factory=set)

    def push(self, source: Path, there: str) -> None:
        """Copy a file or folder.

        Only a folder's push makes folders, so a tree of links that ends in the source is pushed.
        """
        top, *middle, name = PurePosixPath(there).parts
        what = f"cannot push {source.name} to {self.udid}"
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as temporary:
            folder = Path(temporary).joinpath(*middle)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(source.resolve())
            tree = Path(temporary) / (middle[0] if middle else name)
            remote = top if tree.is_dir() else there
            words = ("apps", "push", self.bundle_id, str(tree), remote)
            self.tool.run(what, *words, timeout_s=transfer_s(source))

    def read(self, there: str) -> bytes | None:
        """Return a file's bytes, None if it is not there.

        Raises:
            RunFailedError: The phone cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as folder:
            path = Path(folder) / "pulled"
            done = self.tool.attempt("apps", "pull", self.bundle_id, there, str(path))
            if done.returncode == 0 and path.is_file():
                return path.read_bytes()
        if _ABSENT in done.stderr:
            return None
        raise fault(done, f"cannot read {there} on {self.udid}")

    def launch(self, arguments: tuple[str, ...], log: Path) -> Child:
        """Start the app with a console; it ends one that runs already."""
        self.known.update(self._reports())
        words = ("developer", "core-device", "launch-application", "--console", self.bundle_id)
        return self.tool.start(*words, "--", *arguments, log=log)

    def terminate(self) -> None:
        """End the app."""
        self.tool.attempt("developer", "dvt", "pkill", "--bundle", self.bundle_id)

    def post_mortem(self) -> str:
        """Return the name of the crash report that this run left, empty without one."""
        new = self._reports() - self.known
        return f"crash report {max(new)}" if new else ""

    def _reports(self) -> set[str]:
        with contextlib.suppress(MobilepackError):
            return reports(self.tool.run("cannot list crash reports", "crash", "ls"))
        return set()
