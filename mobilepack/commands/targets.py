"""List the targets that ship with mobilepack."""

from __future__ import annotations

from mobilepack.target import Target, load_target, target_names


def targets() -> tuple[Target, ...]:
    """Return every shipped target, sorted by name.

    Raises:
        UsageError: A target file is broken.
    """
    return tuple(load_target(name) for name in target_names())
