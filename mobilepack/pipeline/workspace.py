"""The folder a build works in: beside its package, locked, resumable, renamed when whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mobilepack.contract.base import write_atomically

_STATE = ".build.json"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A locked folder whose content belongs to one build plan.

    Attributes:
        folder: Where files are written.
        final: Where the folder will be when it is whole.
    """

    folder: Path
    final: Path

    def publish(self) -> None:
        """Replace the final folder by this one; a reader finds the old package or the new."""
        (self.folder / _STATE).unlink(missing_ok=True)
        old = self.final.with_name(f".{self.final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.rename(old)
        self.folder.rename(self.final)
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Remove everything that was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def locked(out: Path, target: str) -> Iterator[None]:
    """Hold the build lock of one target in one output folder; waits for another build."""
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / f".{target}.lock"):
        yield


def open_workspace(out: Path, target: str, plan_id: str) -> Workspace:
    """Return the workspace of a plan; what a killed build of the same plan left is kept.

    What was written before a reboot is not trusted: pages may not have reached the disk.
    """
    folder = out / f".{target}.partial"
    state = {"plan_id": plan_id, "boot": _boot_id()}
    if _read_state(folder) != state:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_atomically(folder / _STATE, json.dumps(state))
    return Workspace(folder, out / target)


def _read_state(folder: Path) -> object:
    try:
        return json.loads((folder / _STATE).read_text())
    except (OSError, ValueError):
        return None


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return str(os.getppid())
