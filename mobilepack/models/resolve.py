"""Fit a family's tensor names to what a checkpoint really holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.families.base import Family
from mobilepack.models.spec import DecoderSpec, TensorSource

_BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Resolved:
    """A family's tensor names fitted to a file.

    Attributes:
        spare: Keys that the file holds although they repeat another tensor.
    """

    spec: DecoderSpec
    sources: dict[str, TensorSource]
    spare: frozenset[str] = frozenset()


def resolve_sources(checkpoint: Checkpoint, family: Family, spec: DecoderSpec) -> Resolved:
    """Fit the family's tensor names to what the file holds; what is stored twice is read once."""
    found = _fitted(checkpoint, family, spec)
    repeats = _repeats(checkpoint, found.sources)
    sources = {
        name: replace(source, key=repeats.get(source.key, source.key))
        for name, source in found.sources.items()
    }
    return Resolved(found.spec, sources, found.spare | frozenset(repeats))


def _repeats(checkpoint: Checkpoint, sources: dict[str, TensorSource]) -> dict[str, str]:
    """Return the matrices that equal the same one of an earlier block, by their keys.

    MobiLlama shares one feed-forward among all blocks and its files hold it once per block. Only
    where first rows are equal is the rest read and compared.
    """
    import torch

    known: dict[tuple[str, tuple[int, ...]], list[tuple[str, torch.Tensor]]] = {}
    found: dict[str, str] = {}
    for name, source in sources.items():
        if not name.startswith("layers.") or not _comparable(checkpoint, source):
            continue
        row = checkpoint.rows(source.key, 0, 1)
        part = name.split(".", 2)[2], checkpoint.shape(source.key)
        for key, first in known.get(part, []):
            if torch.equal(row, first) and same_content(checkpoint, key, source.key):
                found[source.key] = key
                break
        else:
            known.setdefault(part, []).append((source.key, row))
    return found


def _comparable(checkpoint: Checkpoint, source: TensorSource) -> bool:
    """Tell whether a parameter is one whole matrix of floats that the file has."""
    if source.key not in checkpoint.files or source.more or source.pick or source.start:
        return False
    info = checkpoint.info(source.key)
    whole = len(info.shape) == 2 and info.shape == source.shape and 0 not in info.shape
    return whole and checkpoint.readable(source.key)


def _fitted(checkpoint: Checkpoint, family: Family, spec: DecoderSpec) -> Resolved:
    """Fit the family's tensor names to what the file holds, the way transformers 5.23 loads it.

    `PreTrainedModel.tie_weights`: a model tied by its config whose file holds both embedding and
    head is tied only if they are equal; if only the head is there, it serves as the embedding.
    An untied model without a head gets a random one (with a warning) in transformers; here the
    head is reported missing. A file saved from the bare model has other names (`renamed`).
    """
    sources = _renamed(checkpoint, family, family.sources(spec))
    spare = _ignored(checkpoint, family)
    untied = replace(spec, tied_head=False)
    separate = _renamed(checkpoint, family, family.sources(untied))
    embed, head = separate["embed.weight"], separate["head.weight"]
    if not spec.tied_head or head.key not in checkpoint.files:
        return Resolved(spec, sources, spare)
    if embed.key not in checkpoint.files:
        return Resolved(spec, sources | {"embed.weight": head, "head.weight": head}, spare)
    if same_content(checkpoint, embed.key, head.key):
        return Resolved(spec, sources, spare | {head.key})
    return Resolved(untied, separate, spare)


def _renamed(
    checkpoint: Checkpoint, family: Family, sources: dict[str, TensorSource]
) -> dict[str, TensorSource]:
    """Return the sources under those of the family's names that fit the file best."""
    rules = getattr(family, "renamed", ())
    others = ({n: _rename(s, rule) for n, s in sources.items()} for rule in rules)
    return max((sources, *others), key=lambda found: _present(checkpoint, found))


def _present(checkpoint: Checkpoint, sources: dict[str, TensorSource]) -> int:
    return sum(source.key in checkpoint.files for source in sources.values())


def _rename(source: TensorSource, rules: tuple[tuple[str, str], ...]) -> TensorSource:
    def other(key: str) -> str:
        for usual, found in rules:
            if key.startswith(usual):
                return found + key.removeprefix(usual)
        return key

    return replace(source, key=other(source.key), more=tuple(map(other, source.more)))


def _ignored(checkpoint: Checkpoint, family: Family) -> frozenset[str]:
    """Return the tensors that are no part of the family's decoder."""
    pattern = getattr(family, "ignored", None)
    if pattern is None:
        return frozenset()
    return frozenset(key for key in checkpoint.files if pattern.fullmatch(key))


def same_content(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Tell whether two tensors of a checkpoint hold the same numbers."""
    import torch

    shape = checkpoint.shape(one)
    if shape != checkpoint.shape(other):
        return False
    blocks = range(0, shape[0] if shape else 1, _BLOCK_ROWS)
    return all(
        torch.equal(checkpoint.rows(one, i, end), checkpoint.rows(other, i, end))
        for i, end in ((i, min(i + _BLOCK_ROWS, shape[0])) for i in blocks)
    )
