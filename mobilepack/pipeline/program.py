"""Fill the lowered program with weights; continue where a killed build stopped."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.errors import BuildError

if TYPE_CHECKING:
    import torch

    from mobilepack.backends.xnnpack.lower import Lowered
    from mobilepack.models.weights import Weights

_JOURNAL = ".model.journal"


def write_program(
    path: Path,
    lowered: Lowered,
    weights: Weights,
    rope: dict[str, torch.Tensor],
    on_share: Callable[[float], None],
) -> None:
    """Write `model.pte`; regions that an interrupted run has written are not written again.

    Raises:
        BuildError: The disk has no room, or a weight is not a number.
    """
    from mobilepack.backends.xnnpack.emit import Observer, ProgramFile, Sources, fill

    total = len(lowered.head) + lowered.layout.size
    journal = _Journal(path.with_name(_JOURNAL), lowered)
    _require_room(path, total - (path.stat().st_size if path.exists() else 0))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_share(min(1.0, done / total))

    file = ProgramFile(path, len(lowered.head))
    try:
        observer = Observer(journal.done, advance, journal.add)
        fill(file, lowered.layout, Sources(weights, rope), observer)
        file.finish(lowered.head, lowered.layout.size)
    except OSError as err:
        if err.errno == errno.ENOSPC:
            raise _disk_full(path, total) from err
        raise
    finally:
        file.close()
    journal.remove()


class _Journal:
    """Which regions of the file are complete, one index per line after the layout's hash."""

    def __init__(self, path: Path, lowered: Lowered) -> None:
        digest = hashlib.sha256(lowered.head)
        digest.update(repr([(r.offset, r.size) for r in lowered.layout.regions]).encode())
        name = digest.hexdigest()
        self._path = path
        lines = path.read_text().split("\n") if path.exists() else []
        same = bool(lines) and lines[0] == name
        # a line cut short by the kill has no newline after it and is dropped
        self.done = frozenset(int(line) for line in lines[1:-1]) if same else frozenset[int]()
        if not same:
            path.write_text(name + "\n")
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def add(self, region: int) -> None:
        os.write(self._file, f"{region}\n".encode())

    def remove(self) -> None:
        os.close(self._file)
        self._path.unlink()


def _require_room(path: Path, size: int) -> None:
    if shutil.disk_usage(path.parent).free < size:
        raise _disk_full(path, size)


def _disk_full(path: Path, size: int) -> BuildError:
    free = shutil.disk_usage(path.parent).free
    return BuildError(
        "disk-full",
        f"cannot write {path.name}",
        why=f"it needs {size / 1e6:.0f} MB in {path.parent.parent}, which has {free / 1e6:.0f} MB",
        next="free some space, or choose another folder with -o",
    )
