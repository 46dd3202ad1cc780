"""Plan where intermediate tensors live: two share bytes only if their lifetimes do not meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

_ALIGNMENT = 64  # bytes, a cache line


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A tensor of `size` bytes, in use from instruction `first` to `last`, both included."""

    index: int
    size: int
    first: int
    last: int


def overlap(one: Lifetime, other: Lifetime) -> bool:
    """Tell whether both tensors are in use at some instruction."""
    return one.first <= other.last and other.first <= one.last


def plan_memory(
    lifetimes: Iterable[Lifetime], meet: Callable[[Lifetime, Lifetime], bool] = overlap
) -> tuple[dict[int, int], int]:
    """Place tensors greedily, largest first, each at the lowest offset that is free.

    This is the greedy-by-size strategy of Pisarchyk and Lee 2020, section 4.3.

    Args:
        lifetimes: The tensors.
        meet: Whether two of them must not share bytes.

    Returns:
        The byte offset of each tensor by its index, and the size of the whole arena.
    """
    placed: list[tuple[int, int, Lifetime]] = []
    for item in sorted(lifetimes, key=lambda item: (-item.size, item.first, item.index)):
        size = -(-item.size // _ALIGNMENT) * _ALIGNMENT
        start = 0
        for other_start, other_end, other in sorted(placed, key=lambda entry: entry[0]):
            if not meet(item, other):
                continue
            if start + size <= other_start:
                break
            start = max(start, other_end)
        placed.append((start, start + size, item))
    offsets = {item.index: start for start, _, item in placed}
    return offsets, max((end for _, end, _ in placed), default=0)
