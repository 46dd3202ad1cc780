"""Published shapes: the `config.json` of models whose weights are not at hand.

The sizes are those of the configs on the Hugging Face hub, cut to what decides the decoder; the
survey of arXiv 2409.15790 measured these models.
"""

from __future__ import annotations

from pathlib import Path

from mobilepack.errors import UsageError, near_misses
from mobilepack.models.config import Json, read_json

_FOLDER = Path(__file__).resolve().parent


def published_names() -> tuple[str, ...]:
    """Return the names of all shapes, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def published_config(name: str) -> dict[str, Json]:
    """Return a shape's config.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in published_names():
        raise UsageError(
            "unknown-shape",
            f"there is no published shape {name!r}",
            why=near_misses(name, list(published_names())),
            next="name one of them, or give a checkpoint with `source`",
        )
    return read_json(_FOLDER / f"{name}.json")
