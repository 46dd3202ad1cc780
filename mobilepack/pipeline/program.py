"""Fill the lowered program with weights; continue where a killed build stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.base import write_atomically
from mobilepack.errors import BuildError
from mobilepack.pipeline.workspace import FULL, disk_full

if TYPE_CHECKING:
    import torch

    from mobilepack.backends.xnnpack.lowered import Lowered
    from mobilepack.models.source import Source

_JOURNAL = ".model.journal"


def write_program(
    path: Path,
    lowered: Lowered,
    weights: Source,
    tables: dict[str, torch.Tensor],
    on_share: Callable[[float], None],
) -> None:
    """Write `model.pte`; regions that an interrupted run has written are not written again.

    Raises:
        BuildError: The disk has no room, or a weight is not a number.
    """
    from mobilepack.backends.xnnpack.emit import Observer, ProgramFile, Sources, fill

    total = len(lowered.head) + lowered.layout.size
    _require_room(path, total - (path.stat().st_size if path.exists() else 0))
    journal = _Journal(path, lowered)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_share(min(1.0, done / total))

    file = ProgramFile(path, len(lowered.head))
    try:
        observer = Observer(journal.done, advance, journal.add)
        fill(file, lowered.layout, Sources(weights, tables), observer)
        file.finish(lowered.head, lowered.layout.size)
    except OSError as err:
        if err.errno in FULL:
            raise _too_big(path, total, err) from err
        raise
    finally:
        file.close()
        journal.close()


class _Journal:
    """Which regions of the file are complete, one index per line after the layout's hash.

    It stays beside the program until the package is published, for a build that is killed later.
    """

    def __init__(self, program: Path, lowered: Lowered) -> None:
        path, name = program.with_name(_JOURNAL), _layout_hash(lowered)
        lines = path.read_text().split("\n") if path.exists() and program.exists() else []
        same = bool(lines) and lines[0] == name
        # a line cut short by the kill has no newline after it and is dropped
        self.done = frozenset(int(line) for line in lines[1:-1]) if same else frozenset[int]()
        if not same:
            program.unlink(missing_ok=True)  # what it holds could stay between the new regions
        text = "".join(f"{line}\n" for line in (name, *sorted(self.done)))
        write_atomically(path, text)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def add(self, region: int) -> None:
        os.write(self._file, f"{region}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def _layout_hash(lowered: Lowered) -> str:
    digest = hashlib.sha256(lowered.head)
    for region in lowered.layout.regions:
        digest.update(repr(region).encode())
    return digest.hexdigest()


def _require_room(path: Path, size: int) -> None:
    if shutil.disk_usage(path.parent).free < size:
        raise _too_big(path, size)


def _too_big(path: Path, size: int, err: OSError | None = None) -> BuildError:
    return disk_full(path.parent.parent, f"{path.name} needs {size / 1e6:.1f} MB", err)
