"""What goes wrong with attention and its cache: the mask, the slots, the writes, the heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from mobilepack.models.causes.evidence import Cause, Evidence, Hypotheses, Hypothesis
from mobilepack.models.graph import arguments, fixed

_MASK = (
    "look at how the mask is made: backends/xnnpack/attention.py `_mask_graph`, or the masks that"
)
_MASK += " models/static_session.py gives a static program"
_CACHE = "look at the cache's writes: `write_cache` of backends/xnnpack/attention_*.py, `_store` of"
_CACHE += " models/static_session.py, and whether the states survive a call"


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to do it wrong.

    Attributes:
        looks: How many positions behind its own a query sees: 0 is right.
        writes: What becomes of new keys and values.
        slot: How far beside its place a new token is written.
        scale: Factor on the scale of the scores.
        interleaved: Whether queries go to key heads in turn instead of in runs.
        only: Calls that do it wrong: programs have a branch for one token and one for many.
    """

    looks: int = 0
    writes: Literal["both", "no keys", "no values", "neither", "first only"] = "both"
    slot: int = 0
    window: int = 0
    scale: float = 1.0
    interleaved: bool = False
    softcap: bool = True
    only: Literal["", "of one token", "of many tokens"] = ""

    def of(self, tokens: int) -> Fault:
        """Return what happens in a call of so many tokens."""
        skipped = {"": False, "of one token": tokens > 1, "of many tokens": tokens == 1}
        return _RIGHT if skipped[self.only] else self


_RIGHT = Fault()
_CALLS: tuple[Literal["", "of one token", "of many tokens"], ...] = (
    "",
    "of one token",
    "of many tokens",
)
_FAULTS: tuple[tuple[str, str, str, Fault], ...] = (
    ("mask-off-by-one", "every query sees the token after it", _MASK, Fault(looks=1)),
    ("mask-off-by-one", "no query sees its own token", _MASK, Fault(looks=-1)),
    ("dropped-write", "new keys are not written to the cache", _CACHE, Fault(writes="no keys")),
    ("dropped-write", "new values are not written to the cache", _CACHE, Fault(writes="no values")),
    ("dropped-write", "neither keys nor values are written", _CACHE, Fault(writes="neither")),
    (
        "dropped-write",
        "only the first call of a prompt writes to the cache",
        _CACHE,
        Fault(writes="first only"),
    ),
    (
        "stale-slot",
        "new tokens are written one slot too far on, so that a stale slot is read",
        _CACHE,
        Fault(slot=1),
    ),
    (
        "stale-slot",
        "new tokens are written one slot too early, so that a stale slot is read",
        _CACHE,
        Fault(slot=-1),
    ),
    ("window-off-by-one", "its window is one token longer", _MASK, Fault(window=1)),
    ("window-off-by-one", "its window is one token shorter", _MASK, Fault(window=-1)),
    ("missing-window", "it looks beyond its sliding window", _MASK, Fault(window=1 << 30)),
    ("wrong-scale", "scores are not scaled", _MASK, Fault(scale=0.0)),
    ("missing-softcap", "scores are not capped", _MASK, Fault(softcap=False)),
    (
        "wrong-head-groups",
        "queries go to key heads in turn, not in runs",
        "look at repeat_interleave against repeat of the key heads (GQA)",
        Fault(interleaved=True),
    ),
)


def attention(evidence: Evidence) -> Hypotheses:
    """Yield what each known fault of an attention would have computed over all calls."""
    window, softcap = (arguments(evidence.node)[i] for i in (7, 8))
    for name, text, remedy, fault in _FAULTS:
        if (fault.window and not window) or (not fault.softcap and not softcap):
            continue
        for only in _CALLS if _mixed(evidence) else _CALLS[:1]:
            told = f"{text} in calls {only}" if only else text
            predicted = torch.cat(_replay(evidence, replace(fault, only=only)))
            yield Hypothesis(Cause(name, told, remedy), predicted)


def _mixed(evidence: Evidence) -> bool:
    return len({one.found.shape[1] > 1 for one in evidence.observations}) == 2


def _replay(evidence: Evidence, fault: Fault) -> list[torch.Tensor]:
    node = evidence.node
    cache = arguments(node)[3]
    limit, kv_heads, dim = (fixed(cache, axis) for axis in (1, 2, 3))
    caches = (torch.zeros(limit, kv_heads, dim), torch.zeros(limit, kv_heads, dim))
    results = []
    for one in evidence.observations:
        q, k, v = (x[0].unflatten(-1, (-1, dim)) for x in one.inputs[:3])
        now = fault.of(len(q))
        _write(caches, (k, v), one.position, now)
        results.append(_attend(node, q, caches, one.position, now))
    return results


def _write(
    caches: tuple[torch.Tensor, ...], new: tuple[torch.Tensor, ...], start: int, fault: Fault
) -> None:
    dropped = {
        "both": (), "no keys": (0,), "no values": (1,), "neither": (0, 1),
        "first only": (0, 1) if start else (),
    }[fault.writes]  # fmt: skip
    for index, (cache, values) in enumerate(zip(caches, new, strict=True)):
        begin = start + fault.slot
        first, last = max(begin, 0), min(begin + len(values), len(cache))
        if index not in dropped and first < last:
            cache[first:last] = values[first - begin : last - begin]


def _attend(
    node: torch.fx.Node,
    q: torch.Tensor,
    caches: tuple[torch.Tensor, ...],
    start: int,
    fault: Fault,
) -> torch.Tensor:
    scale, window, softcap = (float(a) for a in arguments(node)[6:9])
    seen = min(start + len(q) + max(fault.looks, 0), len(caches[0]))
    keys, values = (cache[:seen] for cache in caches)
    groups = q.shape[1] // keys.shape[1]
    spread = torch.Tensor.repeat if fault.interleaved else None
    if spread is None:
        keys, values = (c.repeat_interleave(groups, 1) for c in (keys, values))
    else:
        keys, values = (c.repeat(1, groups, 1) for c in (keys, values))
    scores = torch.einsum("shd,thd->hst", q, keys) * (scale if fault.scale else 1.0)
    if softcap and fault.softcap:
        scores = softcap * torch.tanh(scores / softcap)
    rows = torch.arange(start, start + len(q))[:, None]
    columns = torch.arange(seen)[None]
    hidden = columns > rows + fault.looks
    if window:
        hidden |= columns <= rows - (window + fault.window)
    scores = scores.masked_fill(hidden, -1e9)
    return torch.einsum("hst,thd->shd", scores.softmax(-1), values).flatten(1)
