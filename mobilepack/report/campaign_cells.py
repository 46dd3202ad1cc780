"""What a campaign's views say of a cell: its name, its tests, its figures as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mobilepack.contract.bench import BenchTest
from mobilepack.contract.campaign import Cell

Row = Sequence[str]
_MEGABYTE = 1e6


def measured_cells(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Yield the cells that were measured."""
    return (cell for cell in cells if cell.bench is not None)


def tests_of(cell: Cell) -> tuple[BenchTest, ...]:
    """Return a cell's tests; none for one that failed."""
    return () if cell.bench is None else cell.bench.tests


def first_test(cell: Cell) -> BenchTest:
    """Return the first test of a measured cell."""
    return tests_of(cell)[0]


def per_token(cells: Iterable[Cell]) -> Iterator[tuple[Cell, float]]:
    """Yield each cell that generated, with its median milliseconds per token."""
    for cell in measured_cells(cells):
        found = first_test(cell).decode_token_ms
        if found is not None:
            yield cell, found.median


def name_of(cell: Cell) -> str:
    """Return the model's name; a star stands for random weights."""
    return cell.key.model + ("*" if cell.random_weights else "")


def verdict_of(test: BenchTest) -> str:
    """Return the trust in a test; of one that is not valid, how steady it was too."""
    steady = (test.decode_token_ms or test.round_tok_per_s).verdict
    return test.trust if test.trust == "VALID" else f"{test.trust}, {steady}"


def peak_text(cell: Cell) -> str:
    """Return the peak of memory over an empty process's, megabytes."""
    return "-" if cell.bench is None else f"{cell.bench.peak_over_base_bytes / _MEGABYTE:,.1f}"


def stat_text(found: object) -> str:
    """Return a median with its interval, `-` for what was not measured."""
    median = getattr(found, "median", None)
    if median is None:
        return "-"
    low, high = getattr(found, "low", median), getattr(found, "high", median)
    return f"{figure_text(median)} [{figure_text(low)}, {figure_text(high)}]"


def figure_text(value: float) -> str:
    """Return a number with four significant digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def table_lines(head: Row, rows: Iterable[Row]) -> list[str]:
    """Return the lines of a table of Markdown."""

    def line(cells: Row) -> str:
        return "| " + " | ".join(escaped(cell) for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]


def escaped(text: str) -> str:
    """Return text that is text in a cell of Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
