"""Opening a package: every file the manifest lists is present, inside, whole and unaltered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import FileEntry, Manifest
from mobilepack.errors import MissingError, UsageError

MANIFEST = "manifest.json"
MLPACKAGE = "model.mlpackage"
ONNX = "model.onnx"
MLPACKAGES = "model"
"""Folder of the packages of a model that one cannot hold."""
_NEXT = "build the package again: mobilepack build MODEL -o OUT"


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose files have been checked.

    Attributes:
        root: Folder that holds manifest.json.
    """

    root: Path
    manifest: Manifest

    @property
    def program(self) -> Path:
        """Path of the program: a file, a Core ML package, or a folder of such packages.

        It runs on this machine; on a phone too, unless that has its own.

        Raises:
            MissingError: The manifest lists no program, or several.
        """
        if self.manifest.npu is not None:
            return self.root / self.manifest.npu.emulator_program
        for name in (MLPACKAGE, MLPACKAGES, ONNX):
            if self.lists(name):
                return self.root / name
        found = [entry.path for entry in self.manifest.files if entry.path.endswith(".pte")]
        if len(found) != 1:
            raise MissingError(
                "no-program",
                f"{self.root} has no single program to run",
                why=f"{MANIFEST} lists {len(found)} .pte files: {', '.join(found) or 'none'}",
                next=_NEXT,
            )
        return self.root / found[0]

    @property
    def phone_program(self) -> Path:
        """Path of the program that a phone runs; see `program`."""
        own = None if self.manifest.npu is None else self.manifest.npu.phone_program
        return self.program if own is None else self.root / own

    def program_on(self, kind: str) -> str:
        """Return the program that a kind of device runs (`DeviceKind`), below the package."""
        path = self.phone_program if kind == "device" else self.program
        return path.relative_to(self.root).as_posix()

    @property
    def program_bytes(self) -> int:
        """Size of the program, a file or a folder, with weights that lie beside it."""
        name = self.program.relative_to(self.root).as_posix()
        whole = (name, f"{name}.data")
        files = self.manifest.files
        return sum(e.bytes for e in files if e.path in whole or e.path.startswith(name + "/"))

    @property
    def weight_cache(self) -> str:
        """The program's checksum if its packed weights may be kept, see `RunPlan.weight_cache`."""
        if not self.manifest.placement.weight_cache:
            return ""
        program = self.program.relative_to(self.root).as_posix()
        return next(entry.sha256 for entry in self.manifest.files if entry.path == program)

    @property
    def reference(self) -> Path:
        """Folder of the flight recorder's reference."""
        return self.root / "reference"

    def lists(self, path: str) -> bool:
        """Whether the manifest lists a file or a folder that holds one."""
        return any(e.path == path or e.path.startswith(path + "/") for e in self.manifest.files)


def open_package(path: Path) -> Package:
    """Open a package and check every file against its manifest.

    Args:
        path: The package, or the output folder that holds one package per target.

    Raises:
        MissingError: There is no package.
        UsageError: Several packages, an invalid manifest, or files that leave the package, are
            missing or differ in length or checksum; all of them are named at once.
    """
    root = _find(path)
    manifest = Manifest.read(root / MANIFEST)
    wrong = [text for entry in manifest.files if (text := _wrong(root, entry))]
    if content_id(manifest.plan) != manifest.plan_id:
        wrong.append("the plan in its manifest is not the one that plan_id names")
    if wrong:
        raise UsageError(
            "damaged-package",
            f"{root} is not the package its manifest describes",
            why="; ".join(wrong),
            next=_NEXT,
        )
    return Package(root, manifest)


def _find(path: Path) -> Path:
    if (path / MANIFEST).is_file():
        return path
    # a hidden folder is a build's own: unfinished, or about to be deleted
    found = sorted(p.parent for p in path.glob(f"[!.]*/{MANIFEST}")) if path.is_dir() else []
    if not found:
        why = "no manifest.json in it or one level below" if path.is_dir() else "no such folder"
        raise MissingError("no-package", f"there is no package at {path}", why=why, next=_NEXT)
    if len(found) > 1:
        raise UsageError(
            "several-packages",
            f"{path} holds {len(found)} packages",
            why="one at a time: " + ", ".join(p.name for p in found),
            next=f"name one, for example {found[0]}",
        )
    return found[0]


def _wrong(root: Path, entry: FileEntry) -> str:
    pure = PurePosixPath(entry.path)
    file = root / entry.path
    odd = any(character in entry.path for character in "\\\0")
    if odd or pure.is_absolute() or ".." in pure.parts or not pure.parts:
        return f"{entry.path!r} leaves the package"
    try:
        if not file.resolve().is_relative_to(root.resolve()):
            return f"{entry.path} is a link that leaves the package"
        size = file.stat().st_size
        if not file.is_file():
            return f"{entry.path} is not a file"
        if size != entry.bytes:
            return f"{entry.path} has {size} bytes, the manifest says {entry.bytes}"
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as err:
        return f"{entry.path}: {err.strerror or err}"
    return "" if digest == entry.sha256 else f"{entry.path} was altered (sha256 {digest[:12]}…)"


def file_entry(root: Path, path: str) -> FileEntry:
    """Return the manifest's entry for a file below `root`."""
    with (root / path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(path=path, bytes=(root / path).stat().st_size, sha256=digest)
