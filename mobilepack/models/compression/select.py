"""A decoder with fewer tokens, blocks, heads or channels: some rows and columns of another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mobilepack.errors import UsageError
from mobilepack.models.source import Source, View
from mobilepack.models.spec import DecoderSpec, parameter_shapes

if TYPE_CHECKING:
    import torch

Indices = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of another decoder's parameters.

    Attributes:
        names: The other decoder's name of each parameter.
        rows: Rows that are taken, in order; all where a parameter is absent.
        columns: Likewise.
    """

    names: Mapping[str, str]
    rows: Mapping[str, Indices] = field(default_factory=dict)
    columns: Mapping[str, Indices] = field(default_factory=dict)


class Selected(View):
    """A choice of parameters, rows and columns, still read in pieces."""

    def __init__(self, base: Source, selection: Selection) -> None:
        super().__init__(base)
        self._selection = selection

    def names(self) -> Collection[str]:
        """Return every parameter's name."""
        return self._selection.names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""
        chosen = self._selection
        count, *rest = self._base.shape(chosen.names[name])
        if name in chosen.rows:
            count = len(chosen.rows[name])
        if name in chosen.columns:
            rest = [len(chosen.columns[name])]
        return (count, *rest)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive)."""
        import torch

        chosen, source = self._selection, self._selection.names[name]
        if name in chosen.rows:
            wanted = chosen.rows[name][start:stop]
            parts = [self._base.rows(source, *run) for run in runs(wanted)]
            found = torch.cat(parts) if len(parts) != 1 else parts[0]
        else:
            found = self._base.rows(source, start, stop)
        if name in chosen.columns:
            found = found[:, list(chosen.columns[name])].contiguous()
        return found

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same numbers."""
        chosen = self._selection
        parts = [self._base.identity(chosen.names[name])]
        for kind, table in (("rows", chosen.rows), ("columns", chosen.columns)):
            if name in table:
                digest = hashlib.sha256(repr(table[name]).encode()).hexdigest()
                parts.append(f"{kind} {digest[:16]}")
        return " ".join(parts)

    def parameters(self) -> int:
        """Return how many numbers the model has; shared ones count once."""
        unique = {self.identity(name): math.prod(self.shape(name)) for name in self.names()}
        return sum(unique.values())


def runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield runs [first, end) of neighbouring indices, in their order."""
    begin = previous = None
    for index in indices:
        if begin is None or previous is None or index != previous + 1:
            if begin is not None and previous is not None:
                yield begin, previous + 1
            begin = index
        previous = index
    if begin is not None and previous is not None:
        yield begin, previous + 1


def without_layers(spec: DecoderSpec, dropped: Collection[int]) -> tuple[DecoderSpec, Selection]:
    """Return the decoder without some blocks, and where its parameters come from.

    Raises:
        UsageError: Blocks share their parameters.
    """
    if any(layer.shares is not None for layer in spec.layers):
        raise UsageError(
            "layers-shared",
            f"cannot drop blocks of this {spec.family} model",
            why="its blocks share their parameters, so dropping one frees nothing",
            next="leave --prune layers out",
        )
    kept = [index for index in range(len(spec.layers)) if index not in dropped]
    smaller = replace(spec, layers=tuple(spec.layers[index] for index in kept))
    names = {}
    for name in parameter_shapes(smaller):
        first, _, rest = name.partition(".")
        number, _, tail = rest.partition(".")
        names[name] = f"layers.{kept[int(number)]}.{tail}" if first == "layers" else name
    return smaller, Selection(names)


def with_vocabulary(
    spec: DecoderSpec, kept: Indices, new_id: Mapping[int, int]
) -> tuple[DecoderSpec, Selection]:
    """Return the decoder with some tokens only.

    Args:
        spec: The decoder.
        kept: Old ids in the order of the new ones.
        new_id: New ids by old ones; bos and eos are among them.
    """
    smaller = replace(
        spec,
        vocab_size=len(kept),
        bos_id=None if spec.bos_id is None else new_id[spec.bos_id],
        eos_ids=tuple(new_id[index] for index in spec.eos_ids),
    )
    names = {name: name for name in parameter_shapes(smaller)}
    tables = [name for name in names if name.split(".")[0] in ("embed", "head")]
    return smaller, Selection(names, dict.fromkeys(tables, kept))
