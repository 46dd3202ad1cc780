"""Numbers of a weight as Core ML stores them: rounded rows, and tables of 16 values.

A scale is rounded to half precision before its row is divided by it: the integers belong to the
number that the program multiplies with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

LEVELS = {8: 127, 4: 7}
"""Largest integer of symmetric weights (coremltools' `linear_symmetric`)."""

ENTRIES = 16
BINS = 1024
"""Of the histogram that tables are fitted to: a bin is a 128th of the distance of two entries."""

ROUNDS = 25
"""Of Lloyd's algorithm: enough for normal weights; their cubes then miss 0.2 % more than at its
end."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Rows as integers with a scale each.

    Attributes:
        values: int8 [rows, columns].
        scales: fp16 [rows].
    """

    values: np.ndarray
    scales: np.ndarray


def rounded(rows: torch.Tensor, bits: int) -> Rounded:
    """Round rows [rows, columns] to nearest; the largest magnitude gets the largest integer."""
    most = LEVELS[bits]
    scales = (rows.abs().amax(1) / most).clamp_min(2.0**-24).half()  # fp16's least number above 0
    values = (rows / scales.float()[:, None]).round_().clamp_(-most, most)
    return Rounded(values.to(torch.int8).numpy(), scales.numpy())


@dataclass(frozen=True, slots=True)
class Palette:
    """Rows as places in tables.

    Attributes:
        places: uint8 [rows, columns], below 16.
        tables: fp16 [groups, 16], ascending; as many rows each, in order.
    """

    places: np.ndarray
    tables: np.ndarray


def palette(rows: torch.Tensor, group: int) -> Palette:
    """Find 16 values for each group of rows [rows, columns] that miss its numbers least.

    Lloyd's algorithm (1982; k-means in one dimension) on a histogram of each group, begun where
    the best spacing for many levels is, by the cube root of the density (Panter and Dite 1951);
    then every number takes the nearest entry.
    """
    groups = rows.reshape(rows.shape[0] // group, -1)
    tables = _fitted(groups).half()
    between = (tables[:, 1:].float() + tables[:, :-1].float()) / 2
    places = torch.searchsorted(between, groups).to(torch.uint8)
    return Palette(places.reshape(rows.shape).numpy(), tables.numpy())


def _fitted(groups: torch.Tensor) -> torch.Tensor:
    """Return tables [groups, 16] for numbers [groups, n]."""
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    width = ((high - low) / BINS).clamp_min(1e-30)
    bins = ((groups - low) / width).long().clamp_(0, BINS - 1)
    empty = torch.zeros(groups.shape[0], BINS)
    weight = empty.scatter_add(1, bins, torch.ones_like(groups))
    middle = low + (torch.arange(BINS) + 0.5) * width
    centres = torch.where(
        weight > 0, empty.scatter_add(1, bins, groups) / weight.clamp_min(1), middle
    )
    below = weight.pow(1 / 3).cumsum(1)
    wanted = below[:, -1:] * ((torch.arange(ENTRIES) + 0.5) / ENTRIES)
    start = torch.searchsorted(below, wanted)
    tables = centres.gather(1, start.clamp_(max=BINS - 1))
    for _ in range(ROUNDS):
        between = ((tables[:, 1:] + tables[:, :-1]) / 2).contiguous()
        nearest = torch.searchsorted(between, centres.contiguous())
        count = torch.zeros_like(tables).scatter_add_(1, nearest, weight)
        total = torch.zeros_like(tables).scatter_add_(1, nearest, weight * centres)
        tables = torch.where(count > 0, total / count.clamp_min(1), tables)
    return tables.sort(1).values
