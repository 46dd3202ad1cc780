"""The files of an `.mlpackage`, mapped: a folder on disk, or a part of another file."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from mobilepack.errors import UsageError

NEXT = "take the package from whoever wrote it again, or convert the model again"


class Files(Protocol):
    """Files by relative path with `/`; nothing outside can be named."""

    @property
    def name(self) -> str:
        """Return what errors call the package."""

    def read(self, path: str) -> memoryview:
        """Return a file's bytes, mapped.

        Raises:
            UsageError: There is no such file, or the path leads out.
        """


def damaged(name: str, why: str) -> UsageError:
    """Return the error of a package that is not whole."""
    return UsageError("invalid-package", f"cannot read {name}", why=why, next=NEXT)


def inner_path(name: str, path: str) -> PurePosixPath:
    """Return a path that stays inside its package.

    Raises:
        UsageError: It is absolute, leads up, or is empty.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise damaged(name, f"it names the file {path!r}, which is not inside it")
    return pure


def map_file(path: Path) -> memoryview:
    """Map a file; an empty file is an empty view.

    Copy-on-write, so that torch takes views of it without a warning; nothing reaches the file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


@dataclass(slots=True)
class Folder:
    """A folder on disk; each file is mapped once."""

    root: Path
    _open: dict[str, memoryview] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what errors call the package."""
        return str(self.root)

    def read(self, path: str) -> memoryview:
        """Return a file's bytes; a link that leads out of the folder is refused.

        Raises:
            UsageError: There is no such file, or it is not inside.
        """
        if path not in self._open:
            file = self.root / inner_path(self.name, path)
            if not file.is_file():
                raise damaged(self.name, f"it has no file {path}")
            if not file.resolve().is_relative_to(self.root.resolve()):
                raise damaged(self.name, f"its file {path} is a link that leads out of it")
            self._open[path] = map_file(file)
        return self._open[path]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Files that lie inside another file, by path."""

    name: str
    files: dict[str, memoryview]

    def read(self, path: str) -> memoryview:
        """Return a file's bytes.

        Raises:
            UsageError: There is no such file.
        """
        key = str(inner_path(self.name, path))
        if key not in self.files:
            raise damaged(self.name, f"it has no file {path}")
        return self.files[key]

    def below(self, folder: str) -> Embedded:
        """Return the files of one folder, with paths relative to it."""
        start = folder + "/"
        inside = {p.removeprefix(start): f for p, f in self.files.items() if p.startswith(start)}
        return Embedded(f"{self.name}:{folder}", inside)
