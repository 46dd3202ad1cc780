"""Where a run's files go: `<package>/runs/<device>/<utc>/`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.base import Contract, write_atomically
from mobilepack.errors import UsageError

LOG = "log.txt"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A new, empty folder of one run.

    Attributes:
        utc: When the run began, `YYYY-MM-DDTHH:MM:SSZ`.
    """

    path: Path
    utc: str

    @property
    def log(self) -> Path:
        """What the runtime printed."""
        return self.path / LOG

    def write(self, name: str, record: Contract) -> Path:
        """Write one result file, whole or not at all."""
        path = self.path / name
        write_atomically(path, record.to_json())
        return path


def new_run_folder(root: Path, device: str, now: datetime.datetime | None = None) -> RunFolder:
    """Create the folder of a run; names sort by time, also within a second.

    Args:
        root: The package.
        device: Id of the device; what a file name cannot hold is replaced.
        now: The time, for tests.

    Raises:
        UsageError: The package cannot be written to.
    """
    time = now or datetime.datetime.now(datetime.UTC)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in device).lstrip(".") or "device"
    parent = root / "runs" / name
    for number in range(1, 1000):
        suffix = "" if number == 1 else f".{number:03d}"
        path = parent / (time.strftime("%Y%m%dT%H%M%SZ") + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as err:
            raise UsageError(
                "unwritable-package",
                f"cannot write results below {parent}",
                why=str(err),
                next="copy the package to a folder you may write to",
            ) from err
        return RunFolder(path, time.strftime("%Y-%m-%dT%H:%M:%SZ"))
    raise UsageError(
        "too-many-runs", f"{parent} is full", why="1000 runs in one second", next="wait a second"
    )
