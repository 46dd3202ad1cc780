"""Tell which GGUF file a user means."""

from __future__ import annotations

from pathlib import Path

from mobilepack.errors import UsageError
from mobilepack.models.gguf.header import MAGIC

SUFFIX = ".gguf"
_CONFIG = "config.json"
_LISTED = 8


def is_gguf(path: Path) -> bool:
    """Tell whether a path is a GGUF file, by its name or by its first bytes."""
    if not path.is_file():
        return False
    if path.suffix.lower() == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def gguf_in(path: Path) -> Path | None:
    """Return the GGUF file that a path is, or that a folder without config.json holds.

    Raises:
        UsageError: The folder holds several, and nothing says which one is meant.
    """
    if not path.is_dir():
        return path
    if (path / _CONFIG).is_file():
        return None
    found = sorted(entry for entry in path.iterdir() if is_gguf(entry))
    if len(found) > 1:
        listed = ", ".join(entry.name for entry in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UsageError(
            "several-gguf",
            f"cannot tell which model of {path} to use",
            why=f"it holds {listed}{more}",
            next=f"give one of the files: {found[0]}",
        )
    return found[0] if found else None
