"""How a model is cut: wide products into pieces, a table into pieces, layers into packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LINEAR_OUTPUTS = 1024
"""Outputs of one product (ExecuTorch's Core ML guide: split large linears near 1024)."""

TABLE_ROWS = 16_384
"""Longest axis that every report about the Neural Engine agrees on."""

_MOST_PIECES = 4  # times as many as needed, to find pieces of equal length


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start` to `stop` (excluded)."""

    start: int
    stop: int

    @property
    def count(self) -> int:
        """Rows."""
        return self.stop - self.start


def spans(rows: int, most: int, multiple: int = 1) -> tuple[Span, ...]:
    """Cut rows into as few spans as possible, of about equal length.

    Args:
        rows: How many.
        most: Longest span.
        multiple: What every start is a multiple of.
    """
    count = -(-rows // most)
    each = -(-rows // (count * multiple)) * multiple
    return tuple(Span(start, min(start + each, rows)) for start in range(0, rows, each))


def table_spans(rows: int) -> tuple[Span, ...]:
    """Cut a vocabulary; into equal spans where a small number of them divides it."""
    least = -(-rows // TABLE_ROWS)
    for count in range(least, _MOST_PIECES * least + 1):
        if rows % count == 0:
            return spans(rows, rows // count)
    return spans(rows, TABLE_ROWS)


def chunks(layer_bytes: Sequence[int], limit: int) -> tuple[range, ...]:
    """Cut layers into runs whose weights stay within a limit; a run has one layer at least."""
    runs: list[range] = []
    start, used = 0, 0
    for index, size in enumerate(layer_bytes):
        if index > start and used + size > limit:
            runs.append(range(start, index))
            start, used = index, 0
        used += size
    return (*runs, range(start, len(layer_bytes)))
