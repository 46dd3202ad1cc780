"""The flight recorder: what eager PyTorch computed for fixed token ids, kept in the package.

`reference/reference.json` says what was fed; `reference/reference.safetensors` holds, for each
variant of the model, one row per position of every sequence, in order: `<variant>.sampled`
float32 [N, M], `<variant>.top_ids` int64 [N, K], `<variant>.top_logits` float32 [N, K],
`<variant>.logsumexp` float32 [N], `<variant>.next_logit` float32 [N].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mobilepack.contract.base import Contract, write_atomically
from mobilepack.errors import UsageError

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]

Variant = Literal["fp32", "quantised", "floor"]
"""`fp32`: eager fp32. `quantised`: eager with the recipe's quantised weights and activations.
`floor`: `quantised` with its inputs slightly perturbed, which measures its numeric noise."""

INDEX = "reference.json"
TENSORS = "reference.safetensors"
TOP_K = 64
WHOLE_VOCABULARY = 4096
SAMPLED_IDS = 1024
_FIELDS = ("sampled", "top_ids", "top_logits", "logsumexp", "next_logit")
_NEXT = "build the package again"


def sample_ids(vocab_size: int) -> tuple[int, ...]:
    """Return the vocabulary ids whose logits are kept for cosine, SQNR and RMS.

    Every id if there are at most 4096, else the 1024 ids `i * vocab_size // 1024`, which spread
    over the vocabulary from id 0 on (4 KB a row; cosine and RMS of 1024 of them stand for all).
    """
    if vocab_size <= WHOLE_VOCABULARY:
        return tuple(range(vocab_size))
    return tuple(index * vocab_size // SAMPLED_IDS for index in range(SAMPLED_IDS))


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Flight-recorder rows as arrays; N positions, M sampled ids, K largest logits.

    Attributes:
        sampled: float32 [N, M].
        top_ids: int64 [N, K], largest logit first, ties by lower id.
        top_logits: float32 [N, K].
        logsumexp: float32 [N], natural log.
        next_logit: float32 [N], NaN where a sequence ends and there is no next token.
    """

    sampled: FloatArray
    top_ids: IdArray
    top_logits: FloatArray
    logsumexp: FloatArray
    next_logit: FloatArray

    def __len__(self) -> int:
        return len(self.logsumexp)

    def take(self, index: npt.NDArray[np.intp] | list[int]) -> Rows:
        """Return the rows at `index`, in that order."""
        i = np.asarray(index, dtype=np.intp)
        return Rows(*(getattr(self, field)[i] for field in _FIELDS))


def record(
    logits: npt.NDArray[np.floating],
    next_ids: npt.NDArray[np.integer] | list[int],
    sampled: tuple[int, ...],
    top_k: int = TOP_K,
) -> Rows:
    """Reduce full logits to flight-recorder rows.

    Args:
        logits: float [N, V].
        next_ids: The token that follows each position, -1 where there is none; [N].
        sampled: Ids whose logits are kept whole.
        top_k: How many of the largest logits are kept; all if V is smaller.
    """
    full = np.asarray(logits, dtype=np.float32)
    nxt = np.asarray(next_ids, dtype=np.int64)
    tops = np.stack([_largest(row, min(top_k, full.shape[1])) for row in full])
    wide = full.astype(np.float64)
    peak = wide.max(axis=1)
    lse = peak + np.log(np.exp(wide - peak[:, None]).sum(axis=1))
    picked = full[np.arange(len(full)), np.maximum(nxt, 0)]
    return Rows(
        sampled=np.ascontiguousarray(full[:, list(sampled)]),
        top_ids=tops,
        top_logits=np.take_along_axis(full, tops, axis=1),
        logsumexp=lse.astype(np.float32),
        next_logit=np.where(nxt < 0, np.float32(np.nan), picked).astype(np.float32),
    )


def _largest(row: FloatArray, k: int) -> IdArray:
    """Return the ids of the k largest, largest first, ties by lower id."""
    least = np.partition(row, len(row) - k)[len(row) - k]
    ids = np.flatnonzero(row >= least)  # k, or more if the smallest of them is tied
    order = np.lexsort((ids, -row[ids]))
    return ids[order[:k]].astype(np.int64)


class ReferenceSequence(Contract):
    """Token ids that were fed from position 0; one row per id."""

    name: str = Field(min_length=1)
    token_ids: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)


class GreedyReference(Contract):
    """What a variant generated greedily after a prompt, stop id included if one ended it.

    Attributes:
        gaps: Per new token, its logit minus the runner-up's: how close the choice was.
    """

    name: str = Field(min_length=1)
    variant: Literal["fp32", "quantised"]
    prompt_ids: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    token_ids: tuple[int, ...] = Field(min_length=1)
    gaps: tuple[float, ...] = Field(min_length=1)
    stop_ids: tuple[int, ...] = ()


class ReferenceIndex(Contract):
    """reference.json.

    Attributes:
        sample_ids: Ids of the columns of `sampled`.
        perturbation: Relative size of the input perturbation of variant `floor`, None without it.
    """

    schema_: Literal["mobilepack/reference/1"] = Field("mobilepack/reference/1", alias="schema")
    vocab_size: int = Field(ge=2)
    sample_ids: tuple[int, ...]
    top_k: int = Field(ge=1)
    variants: tuple[Variant, ...] = Field(min_length=1)
    sequences: tuple[ReferenceSequence, ...] = Field(min_length=1)
    greedy: tuple[GreedyReference, ...] = ()
    perturbation: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The flight recorder of a package.

    Attributes:
        rows: Rows per variant, ordered by sequence, then position.
    """

    index: ReferenceIndex
    rows: dict[Variant, Rows]

    @property
    def length(self) -> int:
        """Rows of every variant."""
        return sum(len(s.token_ids) for s in self.index.sequences)

    def offset(self, sequence: str) -> int:
        """Return the row of position 0 of a sequence."""
        start = 0
        for item in self.index.sequences:
            if item.name == sequence:
                return start
            start += len(item.token_ids)
        raise KeyError(sequence)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both files after checking them; return their paths.

        Raises:
            UsageError: Shapes or types of the rows do not fit the index.
        """
        from safetensors.numpy import save

        tensors = {
            f"{variant}.{field}": np.ascontiguousarray(getattr(rows, field))
            for variant, rows in self.rows.items()
            for field in _FIELDS
        }
        _check(self.index, tensors, folder / TENSORS)
        write_atomically(folder / TENSORS, save(tensors))
        write_atomically(folder / INDEX, self.index.to_json())
        return folder / INDEX, folder / TENSORS

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Read and validate both files.

        Raises:
            UsageError: A file is missing or damaged, or the two do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        index = ReferenceIndex.read(folder / INDEX)
        path = folder / TENSORS
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as err:
            raise _broken(path, str(err)) from err
        _check(index, tensors, path)
        rows = {v: Rows(*(tensors[f"{v}.{f}"] for f in _FIELDS)) for v in index.variants}
        return cls(index, rows)


def _check(index: ReferenceIndex, tensors: dict[str, npt.NDArray[np.generic]], path: Path) -> None:
    wrong = _index_problems(index)
    for variant in index.variants:
        for field in _FIELDS:
            name = f"{variant}.{field}"
            problem = _array_problem(index, field, tensors.get(name))
            wrong += [f"{name} {problem}"] if problem else []
    if wrong:
        raise _broken(path, "; ".join(wrong))


def _index_problems(index: ReferenceIndex) -> list[str]:
    wrong = []
    ids = [*index.sample_ids, *(i for s in index.sequences for i in s.token_ids)]
    if max(ids) >= index.vocab_size:
        wrong.append(f"token id {max(ids)} is outside the vocabulary of {index.vocab_size}")
    names = [s.name for s in index.sequences]
    if len(set(names)) < len(names):
        wrong.append("two sequences share a name")
    return wrong


def _array_problem(index: ReferenceIndex, field: str, found: npt.NDArray[np.generic] | None) -> str:
    length = sum(len(s.token_ids) for s in index.sequences)
    columns = {"sampled": len(index.sample_ids), "top_ids": index.top_k, "top_logits": index.top_k}
    shape = (length, columns[field]) if field in columns else (length,)
    dtype = "int64" if field == "top_ids" else "float32"
    if found is None:
        return "is missing"
    if found.shape != shape or str(found.dtype) != dtype:
        return f"is {found.dtype} {list(found.shape)}, not {dtype} {list(shape)}"
    if field == "top_ids":
        ids = found.astype(np.int64)
        inside = (ids >= 0).all() and (ids < index.vocab_size).all()
        return "" if inside else "has ids outside the vocabulary"
    return "" if field == "next_logit" or np.isfinite(found).all() else "is not finite"


def _broken(path: Path, why: str) -> UsageError:
    return UsageError(
        "invalid-reference", f"the flight recorder {path} cannot be used", why=why, next=_NEXT
    )
