"""What eager fp32 said is kept: other recipes and targets of a model are held against the same.

An entry is a reference with the one variant `fp32`, in the user's cache. It can always be made
again, so a damaged entry is no error.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path

from mobilepack.cache import cache_folder
from mobilepack.contract.base import Contract, content_id
from mobilepack.contract.compression import Compression
from mobilepack.contract.manifest import ModelIdentity
from mobilepack.contract.reference import Reference, Rows
from mobilepack.errors import MobilepackError
from mobilepack.version import exact_version

FOLDER = "references"
KEEP = 100
"""Entries; one is at most a few megabytes."""


class ReferenceKey(Contract):
    """Everything that decides what eager fp32 says.

    Attributes:
        max_seq_len: Some rotary scalings depend on it.
        sequences: Token ids that are fed.
        compression: What was done to the weights.
        versions: Of what computes.
    """

    family: str
    fingerprint: str
    max_seq_len: int
    sequences: tuple[tuple[int, ...], ...]
    compression: Compression | None
    versions: tuple[str, ...]


def key_of(
    model: ModelIdentity,
    max_seq_len: int,
    sequences: Sequence[tuple[int, ...]],
    compression: Compression | None = None,
) -> ReferenceKey:
    """Return the key of a model's reference."""
    versions = (exact_version(), importlib.metadata.version("torch"))
    return ReferenceKey(
        family=model.family,
        fingerprint=model.fingerprint,
        max_seq_len=max_seq_len,
        sequences=tuple(sequences),
        compression=compression,
        versions=versions,
    )


def find(key: ReferenceKey) -> Rows | None:
    """Return the rows of an earlier build, None if there are none."""
    try:
        rows = Reference.read(_folder(key)).rows["fp32"]
    except (MobilepackError, KeyError):
        return None
    return rows if len(rows) == sum(map(len, key.sequences)) else None


def keep(key: ReferenceKey, reference: Reference) -> None:
    """Keep a reference's fp32 rows; a cache that cannot be written is left alone."""
    index = reference.index.model_copy(
        update={"variants": ("fp32",), "greedy": (), "perturbation": None}
    )
    folder = _folder(key)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        Reference(index, {"fp32": reference.rows["fp32"]}).write(folder)
        entries = sorted(folder.parent.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in entries[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)


def _folder(key: ReferenceKey) -> Path:
    return cache_folder(FOLDER) / content_id(key)
