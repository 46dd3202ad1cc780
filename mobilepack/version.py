"""Which mobilepack made something: an installed one by its version, a checkout by its source."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

__version__ = "0.1.0"


_ROOT = Path(__file__).parent


@cache
def exact_version() -> str:
    """Return the version; in a checkout with a digest of the source, `0.1.0+src.1f3a…`.

    Packages and caches of a source that has changed since are then not taken for this one's.
    """
    if _ROOT.parent.name in ("site-packages", "dist-packages"):
        return __version__
    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        digest.update(path.relative_to(_ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{__version__}+src.{digest.hexdigest()[:12]}"
