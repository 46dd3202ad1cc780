"""An `.mlpackage`: its manifest, checked, and the program that it points to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobilepack.errors import MissingError, UsageError
from mobilepack.mil.files import Files, Folder, damaged, inner_path
from mobilepack.mil.parse import parse_program
from mobilepack.mil.program import Program

MANIFEST = "Manifest.json"
DATA = "Data"


def open_mlpackage(path: Path) -> Program:
    """Read an `.mlpackage` folder; weights stay in their file.

    Raises:
        MissingError: There is no such folder, or coremltools is not installed.
        UsageError: It is no ML Program package, or it is damaged.
    """
    if not path.is_dir():
        raise MissingError(
            "no-such-package",
            f"cannot read {path}",
            why="there is no such folder",
            next="name an .mlpackage folder",
        )
    if (path / "coremldata.bin").is_file():
        locked = (path / "encryptionInfo").exists()
        raise UsageError(
            "compiled-model",
            f"cannot read {path}",
            why="it is a compiled model (.mlmodelc)" + (", and encrypted" if locked else ""),
            next="name the .mlpackage that it was compiled from",
        )
    return read_package(Folder(path))


def read_package(files: Files) -> Program:
    """Read the program of a package's files.

    Raises:
        UsageError: The manifest, the specification or a weight file is damaged.
    """
    spec_path = f"{DATA}/{_root_item(files)}"
    model_path = str(inner_path(files.name, spec_path).parent)
    return parse_program(files.name, files.read(spec_path), files, model_path)


def _root_item(files: Files) -> str:
    """Return the path of the model specification, relative to `Data`."""
    manifest = _manifest(files)
    items, root = manifest.get("itemInfoEntries"), manifest.get("rootModelIdentifier")
    if not isinstance(items, dict) or not isinstance(root, str):
        raise damaged(files.name, f"{MANIFEST} lacks itemInfoEntries or rootModelIdentifier")
    entry = items.get(root)
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str):
        raise damaged(files.name, f"{MANIFEST} has no path for its root model {root!r}")
    for item in items.values():
        if isinstance(item, dict) and isinstance(item.get("path"), str):
            inner_path(files.name, item["path"])
    return path


def _manifest(files: Files) -> dict[str, Any]:
    try:
        manifest = json.loads(bytes(files.read(MANIFEST)))
    except ValueError as err:
        raise damaged(files.name, f"{MANIFEST} is not JSON: {err}") from err
    if not isinstance(manifest, dict):
        raise damaged(files.name, f"{MANIFEST} is not a JSON object")
    version = str(manifest.get("fileFormatVersion", ""))
    if version.split(".")[0] != "1":
        raise damaged(files.name, f"{MANIFEST} has format version {version!r}; 1.x is known")
    return manifest
