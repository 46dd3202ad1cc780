"""Open what people have: an `.mlpackage` folder or a `.pte` with Core ML delegates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import MissingError, UsageError, near_misses
from mobilepack.mil.delegates import Delegates
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.program import Program
from mobilepack.mil.pte import PteProgram, open_pte


@dataclass(frozen=True, slots=True)
class Opened:
    """A file and the Core ML programs in it.

    Attributes:
        packages: By key; an `.mlpackage` is one, under "", several of a folder by their names.
        pte: The ExecuTorch program around them, where there is one.
    """

    path: Path
    packages: dict[str, Program]
    pte: PteProgram | None = None

    def only(self) -> Program:
        """Return the one program.

        Raises:
            UsageError: There are several.
        """
        if len(self.packages) != 1:
            raise UsageError(
                "several-programs",
                f"cannot choose one of the {len(self.packages)} Core ML programs in {self.path}",
                why="it has several packages: " + ", ".join(self.packages),
                next="use the commands that take the whole program (`mil run`, `lint`)",
            )
        return next(iter(self.packages.values()))


def open_any(path: Path) -> Opened:
    """Open an `.mlpackage`, a `.pte`, or a folder that holds one of them as `model.*`.

    A folder of `.mlpackage`s (or one with such a folder as `model`) is a model in parts.

    Raises:
        MissingError: There is nothing at the path, or coremltools is not installed.
        UsageError: It is neither, it is damaged, or it has no Core ML program.
    """
    if not path.exists():
        near = [item.name for item in path.parent.glob("*")] if path.parent.is_dir() else []
        raise MissingError(
            "no-such-package",
            f"cannot read {path}",
            why="there is no such file or folder",
            next=near_misses(path.name, near) if near else "check the path",
        )
    for name in ("model.mlpackage", "model.pte", "model"):
        if path.is_dir() and (path / name).exists():
            return open_any(path / name)
    parts = sorted(path.glob("*.mlpackage")) if path.is_dir() else []
    if parts:
        return Opened(path, {part.name: open_mlpackage(part) for part in parts})
    if path.is_dir():
        return Opened(path, {"": open_mlpackage(path)})
    if path.suffix == ".mlmodel":
        raise UsageError(
            "not-an-ml-program",
            f"cannot read {path}",
            why="a bare .mlmodel holds no weights of an ML Program",
            next="convert the model again with coremltools and save an .mlpackage",
        )
    pte = open_pte(path)
    return Opened(path, Delegates(pte).packages(), pte)
