"""What a build reads its weights from: a checkpoint, or a view of one that changes the numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Source(Protocol):
    """A decoder's parameters by its own names, in float32."""

    def names(self) -> Collection[str]:
        """Return every parameter's name."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""
        ...

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive)."""
        ...

    def tensor(self, name: str) -> torch.Tensor:
        """Read a whole small parameter."""
        ...

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same numbers."""
        ...

    def parameters(self) -> int:
        """Return how many numbers the model has; shared ones count once."""
        ...


class View:
    """A source that is another one, except for what a subclass says."""

    def __init__(self, base: Source) -> None:
        self._base = base

    def names(self) -> Collection[str]:
        """Return every parameter's name."""
        return self._base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""
        return self._base.shape(name)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive)."""
        return self._base.rows(name, start, stop)

    def tensor(self, name: str) -> torch.Tensor:
        """Read a whole parameter."""
        return self.rows(name, 0, self.shape(name)[0])

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same numbers."""
        return self._base.identity(name)

    def parameters(self) -> int:
        """Return how many numbers the model has; shared ones count once."""
        return self._base.parameters()


CHUNK_ELEMENTS = 1 << 21
"""Elements of a matrix in memory at once, 8 MB in float32."""


class Readable(Protocol):
    """What reading a matrix piece by piece needs."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""
        ...

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive)."""
        ...


def chunks(source: Readable, name: str) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield a matrix' rows in pieces, each with the number of its first row."""
    count, columns = source.shape(name)
    step = max(1, CHUNK_ELEMENTS // columns)
    for start in range(0, count, step):
        yield start, source.rows(name, start, min(count, start + step))
