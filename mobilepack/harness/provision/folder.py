"""Folders of the user cache that are filled once, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mobilepack.cache import cache_folder


def filled_once(kind: str, key: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """Return a cache folder that holds what `fill` put there, now or at an earlier time.

    Args:
        kind: Part of the cache, its first folder.
        key: Everything that the content depends on.
        fill: Fills an empty folder; if it raises, nothing is kept.
    """
    import filelock

    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    parent = cache_folder(kind)
    folder = parent / name
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(parent / f".{name}.lock"):
        if not folder.is_dir():
            fresh = parent / f".{name}.part"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            try:
                fill(fresh)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            fresh.rename(folder)
    return folder
