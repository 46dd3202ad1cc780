"""Where verbs keep what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "MOBILEPACK_CACHE"


def cache_folder(name: str) -> Path:
    """Return the user's cache folder for one purpose; it may not exist yet.

    `$MOBILEPACK_CACHE`, else `$XDG_CACHE_HOME/mobilepack`, else `~/.cache/mobilepack`.
    """
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own) / name
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mobilepack" / name
