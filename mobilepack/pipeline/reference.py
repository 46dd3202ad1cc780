"""Record what eager PyTorch computes, while the weights stream by (the flight recorder)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobilepack.contract.manifest import Recipe
from mobilepack.contract.reference import (
    TOP_K,
    GreedyReference,
    Reference,
    ReferenceIndex,
    ReferenceSequence,
    Variant,
    record,
    sample_ids,
)

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from mobilepack.models.streaming import Lane, Parameters, Quantisation

PERTURBATION = 1e-4
"""Relative noise on the embedded tokens. Measured on random nets, the result hardly depends on it
between 1e-7 and 1e-4 (facts of executorch 1.5.1 with 8da4w); the upper end crosses rounding
boundaries even in shallow models, and is far below the step of int8 activations, 4e-3."""

GREEDY_TOKENS = 24
_GREEDY_PARAMETERS = 20_000_000  # one pass over the weights per token: for small models only
_LOGIT_BYTES = 128 << 20  # memory for full logits of all lanes
_EVALUATION_FLOP = 4e11  # about ten seconds of one core at 40 GFLOP/s


@dataclass(frozen=True, slots=True)
class Passage:
    """A named run of token ids."""

    name: str
    token_ids: tuple[int, ...]


def choose_passages(
    ids: Sequence[int], vocab_size: int, parameters: int, max_seq_len: int
) -> tuple[Passage, ...]:
    """Cut text into the passages that a reference records, as long as the cost allows.

    Two prompts of different (odd and even) length always; one that fills the cache if a model is
    small enough for it (its check is otherwise made against the program's own shorter calls).

    Args:
        ids: Token ids of some text, `max_seq_len + 64` at least or as many as there are.
        vocab_size: Tokens of the model.
        parameters: Numbers in the model.
        max_seq_len: Positions of the cache.
    """
    rows = min(
        _LOGIT_BYTES // (3 * 4 * vocab_size),
        int(_EVALUATION_FLOP / (3 * 2 * parameters)),
    )
    first = max(2, min(33, max_seq_len, rows // 2, len(ids)))
    first -= 1 - first % 2
    second = max(2, min(24, max_seq_len, rows // 3, len(ids)))
    second -= second % 2
    passages = [
        Passage("first", tuple(ids[:first])),
        Passage("second", tuple(ids[first : first + second]) or tuple(ids[:second])),
    ]
    if rows - first - second >= max_seq_len and len(ids) >= max_seq_len:
        passages.append(Passage("longest", tuple(ids[-max_seq_len:])))
    return tuple(passages)


def quantisation_of(recipe: Recipe) -> Quantisation:
    """Return how a recipe rounds, in the words of the evaluator."""
    from mobilepack.models.streaming import Quantisation

    group = recipe.group_size if recipe.linear != "fp32" else 0
    return Quantisation(group, recipe.embedding, recipe.kv_cache)


def record_reference(
    exported: ExportedProgram,
    parameters: Parameters,
    tables: dict[str, torch.Tensor],
    recipe: Recipe,
    passages: tuple[Passage, ...],
    on_share: Callable[[float], None],
) -> Reference:
    """Run every sequence through eager fp32, eager quantised, and eager quantised with noise."""
    from mobilepack.models.graph import cache_length
    from mobilepack.models.streaming import FP32, run_lanes

    quantised = quantisation_of(recipe)
    kinds: dict[Variant, tuple[Quantisation, float]] = {"fp32": (FP32, 0.0)}
    if quantised != FP32:
        kinds |= {"quantised": (quantised, 0.0), "floor": (quantised, PERTURBATION)}
    lanes = [lane for kind in kinds.values() for lane in _lanes(passages, *kind)]
    logits = run_lanes(exported, parameters, tables, lanes, on_share)
    vocab_size = logits[0].shape[1]
    sampled = sample_ids(vocab_size)
    limit = cache_length(exported) or max(len(passage.token_ids) for passage in passages)
    greedy = _greedy(exported, parameters, tables, quantised, (passages[0], limit))
    rows = {}
    for index, variant in enumerate(kinds):
        mine = logits[index * len(passages) : (index + 1) * len(passages)]
        full = np.concatenate([part.numpy() for part in mine])
        following = [following for s in passages for following in (*s.token_ids[1:], -1)]
        rows[variant] = record(full, following, sampled)
    index_file = ReferenceIndex(
        vocab_size=vocab_size,
        sample_ids=sampled,
        top_k=min(TOP_K, vocab_size),
        variants=tuple(kinds),
        sequences=tuple(ReferenceSequence(name=s.name, token_ids=s.token_ids) for s in passages),
        perturbation=PERTURBATION if "floor" in kinds else None,
        greedy=greedy,
    )
    return Reference(index_file, rows)


def _greedy(
    exported: ExportedProgram,
    parameters: Parameters,
    tables: dict[str, torch.Tensor],
    quantisation: Quantisation,
    start: tuple[Passage, int],
) -> tuple[GreedyReference, ...]:
    """Return what the recipe's eager model says after a short prompt; nothing for big models.

    Args:
        exported: The decoder.
        parameters: Its weights.
        tables: Its tables.
        quantisation: Of the recipe.
        start: A passage whose first half is the prompt, and how many positions may be used.
    """
    from mobilepack.models.streaming import FP32, Lane, run_lanes

    total = sum(math.prod(parameters.shape(name)) for name in parameters.names())
    passage, limit = start
    prompt = passage.token_ids[: len(passage.token_ids) // 2 + 1]
    length = min(GREEDY_TOKENS, limit - len(prompt))
    if total > _GREEDY_PARAMETERS or length < 1:
        return ()
    ids, gaps = list(prompt), []
    for _ in range(length):
        (logits,) = run_lanes(exported, parameters, tables, [Lane(tuple(ids), quantisation)])
        best = logits[-1].topk(2)
        ids.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
    return (
        GreedyReference(
            name="greedy",
            variant="fp32" if quantisation == FP32 else "quantised",
            prompt_ids=prompt,
            token_ids=tuple(ids[len(prompt) :]),
            gaps=tuple(gaps),
        ),
    )


def _lanes(
    passages: tuple[Passage, ...], quantisation: Quantisation, perturbation: float
) -> list[Lane]:
    from mobilepack.models.streaming import Lane

    return [Lane(s.token_ids, quantisation, perturbation) for s in passages]
