"""What Qualcomm's compiler says of the graphs it compiles: the bytes that a call moves."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SUMMARY = re.compile(
    r"DDR bandwidth summary =+\s+"
    r"spill_bytes=(\d+)\s+fill_bytes=(\d+)\s+write_total_bytes=(\d+)\s+read_total_bytes=(\d+)"
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes between the NPU and the main memory in one call of a graph."""

    spill: int
    fill: int
    write: int
    read: int


def traffic(log: str) -> tuple[Traffic, ...]:
    """Return what each compiled graph moves, in the order in which they were compiled."""
    return tuple(Traffic(*map(int, found)) for found in _SUMMARY.findall(log))
