"""Record what eager PyTorch computes, while the weights stream by (the flight recorder)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    Rows,
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

EXACT = Recipe(linear="fp32", group_size=0, embedding="fp32", kv_cache="fp32")
"""Nothing rounded: a reference of eager fp32 alone."""

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


@dataclass(frozen=True, slots=True)
class Eager:
    """What eager evaluation needs: the graph, the weights and the position tables."""

    exported: ExportedProgram
    parameters: Parameters
    tables: dict[str, torch.Tensor]

    def run(
        self, lanes: Sequence[Lane], on_share: Callable[[float], None] = lambda share: None
    ) -> list[torch.Tensor]:
        """Return the logits `[S, V]` of each lane."""
        from mobilepack.models.streaming import run_lanes

        return run_lanes(self.exported, self.parameters, self.tables, lanes, on_share)


def record_reference(
    eager: Eager,
    recipe: Recipe,
    passages: tuple[Passage, ...],
    on_share: Callable[[float], None],
    fp32: Rows | None = None,
) -> Reference:
    """Run every sequence through eager fp32, eager quantised, and eager quantised with noise.

    Args:
        fp32: What an earlier build recorded of eager fp32, which is then not run again.
    """
    from mobilepack.models.graph import cache_length
    from mobilepack.models.streaming import FP32

    quantised = quantisation_of(recipe)
    kinds: dict[Variant, tuple[Quantisation, float]] = {"fp32": (FP32, 0.0)}
    rows: dict[Variant, Rows] = {}
    if fp32 is not None:
        del kinds["fp32"]
        rows["fp32"] = fp32
    if quantised != FP32:
        kinds |= {"quantised": (quantised, 0.0), "floor": (quantised, PERTURBATION)}
    lanes = [lane for kind in kinds.values() for lane in _lanes(passages, *kind)]
    logits = eager.run(lanes, on_share) if lanes else []
    vocab_size = eager.parameters.shape("embed.weight")[0]
    sampled = sample_ids(vocab_size)
    limit = cache_length(eager.exported) or max(len(p.token_ids) for p in passages)
    greedy = _greedy(eager, quantised, (passages[0], limit))
    for index, variant in enumerate(kinds):
        mine = logits[index * len(passages) : (index + 1) * len(passages)]
        full = np.concatenate([part.numpy() for part in mine])
        following = [following for s in passages for following in (*s.token_ids[1:], -1)]
        rows[variant] = record(full, following, sampled)
    index_file = ReferenceIndex(
        vocab_size=vocab_size,
        sample_ids=sampled,
        top_k=min(TOP_K, vocab_size),
        variants=tuple(rows),
        sequences=tuple(ReferenceSequence(name=s.name, token_ids=s.token_ids) for s in passages),
        perturbation=PERTURBATION if "floor" in rows else None,
        greedy=greedy,
    )
    return Reference(index_file, rows)


def joined(
    reference: Reference, rows: Mapping[Variant, Rows], greedy: tuple[GreedyReference, ...]
) -> Reference:
    """Return a reference of eager fp32 with what a backend's own arithmetic gives."""
    every: dict[Variant, Rows] = {**reference.rows, **rows}
    index = reference.index.model_copy(update={"variants": tuple(every), "greedy": greedy})
    return Reference(index, every)


def _greedy(
    eager: Eager, quantisation: Quantisation, prompt_of: tuple[Passage, int]
) -> tuple[GreedyReference, ...]:
    """Return what the recipe's eager model says after a short prompt; nothing for big models."""
    from mobilepack.models.streaming import FP32, Lane

    passage, limit = prompt_of
    shapes = (eager.parameters.shape(name) for name in eager.parameters.names())
    total = sum(math.prod(shape) for shape in shapes)
    prompt = passage.token_ids[: len(passage.token_ids) // 2 + 1]
    length = min(GREEDY_TOKENS, limit - len(prompt))
    if total > _GREEDY_PARAMETERS or length < 1:
        return ()
    ids, gaps = list(prompt), []
    for _ in range(length):
        (logits,) = eager.run([Lane(tuple(ids), quantisation)])
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
