"""Read TOML that people write: one list of what can be wrong with the file itself."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobilepack.errors import UsageError


def read_toml(path: Path, refused: Callable[[Exception], UsageError]) -> dict[str, Any]:
    """Return the tables and values of a TOML file.

    Args:
        path: Of the file, UTF-8.
        refused: Makes the error of a file that cannot be used from its cause.

    Raises:
        UsageError: It cannot be read, is not UTF-8, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise refused(err) from err
