"""The folder a build works in: beside its package, locked, resumable, renamed when whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mobilepack.contract.base import write_atomically
from mobilepack.contract.package import MANIFEST
from mobilepack.errors import BuildError, UsageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Why a write fails on a full disk, over a quota, or past the limit of a file's size."""

_STATE = ".build.json"
_RUNS = "runs"  # what `verify` and `bench` measured (contract/run_folder.py)


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
        """Replace the final folder by this one, which keeps the runs of the old one.

        A reader finds a whole package or, for an instant, none. If that instant is the last of
        this process, the next build puts the old package back (`locked`).
        """
        for path in self.folder.rglob(".*"):  # state, journal, files that a kill cut short
            path.unlink(missing_ok=True)
        old = _old(self.final)
        if self.final.exists():
            self.final.rename(old)
        self.folder.rename(self.final)
        _retire(old, self.final)


@contextmanager
def locked(out: Path, target: str) -> Iterator[None]:
    """Hold the build lock of one target in one output folder; waits for another build.

    What a build that was killed while it published left is put right first.

    Raises:
        UsageError: The folder cannot be written, or what lies at the package's place is none.
    """
    lock, final = FileLock(out / f".{target}.lock"), out / target
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as err:
        raise UsageError(
            "unwritable-output",
            f"cannot write packages to {out}",
            why=str(err),
            next="choose a folder you may write to with -o",
        ) from err
    try:
        _retire(_old(final), final)
        _refuse_foreign(final)
        yield
    finally:
        lock.release()


def _refuse_foreign(final: Path) -> None:
    """Refuse to replace what no build wrote: it would be deleted."""
    if not final.exists() or (final / MANIFEST).is_file():
        return
    if final.is_dir() and not any(final.iterdir()):
        return
    raise UsageError(
        "not-a-package",
        f"will not replace {final}",
        why=f"it has no {MANIFEST}, so it is not a package, and replacing would delete it",
        next="choose another folder with -o, or move it away",
    )


def disk_full(folder: Path, what: str, err: OSError | None = None) -> BuildError:
    """Return the error for a package that does not fit; `what` says what needed the room."""
    free = shutil.disk_usage(folder).free
    cause = f": {err.strerror}" if err is not None else ""
    return BuildError(
        "disk-full",
        f"cannot write a package to {folder}",
        why=f"{what}, and {free / 1e6:.1f} MB are free{cause}",
        next="free some space, or choose another folder with -o",
    )


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _retire(old: Path, final: Path) -> None:
    """Remove a replaced package once its successor is there; until then it is the package."""
    if not old.exists():
        return
    if not final.exists():
        old.rename(final)
        return
    if (old / _RUNS).exists() and not (final / _RUNS).exists():
        (old / _RUNS).rename(final / _RUNS)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def working(out: Path, target: str, plan_id: str) -> Iterator[Workspace]:
    """Yield the workspace of a plan, see `open_workspace`; after an error nothing of it is left.

    Raises:
        BuildError: The disk is full.
    """
    try:
        yield open_workspace(out, target, plan_id)
    except Exception as err:
        shutil.rmtree(_folder(out, target), ignore_errors=True)
        if isinstance(err, OSError) and err.errno in FULL:
            raise disk_full(out, "the package did not fit", err) from err
        raise


def _folder(out: Path, target: str) -> Path:
    return out / f".{target}.partial"


def open_workspace(out: Path, target: str, plan_id: str) -> Workspace:
    """Return the workspace of a plan; what a killed build of the same plan left is kept.

    What was written before a reboot is not trusted: pages may not have reached the disk.
    """
    folder = _folder(out, target)
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
