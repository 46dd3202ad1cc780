"""What `verify` runs: shortest, odd and longest lengths, decoding, and a second prompt."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.contract.reference import GreedyReference, ReferenceIndex, ReferenceSequence
from mobilepack.contract.run_plan import Generate, Teacher, chunked

_TAIL_STEPS = 8
"""Decode steps after the longest prefill: enough to wrap any off-by-one at the cache's end."""
_STEPS_AT_END = 32
"""Decode steps in a row, where the reference reaches so far: errors in the cache add up by then."""


@dataclass(frozen=True, slots=True)
class Check:
    """A teacher item and the reference rows it is held against.

    Attributes:
        sequence: Name of the reference sequence whose ids it feeds.
        role: What the check is for, see `plan_checks`.
    """

    item: Teacher
    sequence: str
    role: str

    @property
    def name(self) -> str:
        """Name of the item and of the row."""
        return self.item.name


@dataclass(frozen=True, slots=True)
class Checks:
    """Everything to run.

    Attributes:
        decoded: The check whose decode steps `prefills` repeat as whole prefills.
        whole: Tokens that fill the cache, fed in two ways that must agree; empty when the
            reference itself reaches that far.
    """

    teachers: tuple[Check, ...]
    decoded: Check
    prefills: tuple[Check, ...]
    whole: tuple[Check, ...]
    greedy: tuple[tuple[Generate, GreedyReference], ...]

    @property
    def items(self) -> tuple[Teacher | Generate, ...]:
        """Everything to run, in order."""
        teachers = (*self.teachers, *self.prefills, *self.whole)
        return (*(check.item for check in teachers), *(item for item, _ in self.greedy))


def plan_checks(
    index: ReferenceIndex, *, prefill_chunk: int, max_seq_len: int, decode_steps: int
) -> Checks:
    """Choose lengths and sequences.

    The order matters: the longest sequence fills the cache, and the second prompt comes right
    after it, so that stale keys and values are there to be seen if anything looks at them.
    """
    clipped = [
        ReferenceSequence(name=s.name, token_ids=s.token_ids[:max_seq_len]) for s in index.sequences
    ]
    ordered = sorted(clipped, key=lambda s: (len(s.token_ids), s.name))
    first, longest = ordered[0], ordered[-1]
    second = ordered[1] if len(ordered) > 1 else first
    one = _decode(first, 1, decode_steps, "shortest")
    odd = _decode(second, _odd(second, prefill_chunk), decode_steps, "odd")
    full = _longest(longest, prefill_chunk)
    end = _end(longest, prefill_chunk, decode_steps)
    half = max(1, min(len(first.token_ids) // 2, prefill_chunk))
    again = _decode(first, half, decode_steps, "second prompt")
    reached = full.item.positions
    return Checks(
        teachers=(one, odd, full, again, end),
        decoded=odd,
        prefills=_prefills(second, odd, prefill_chunk),
        whole=_whole(clipped, prefill_chunk, max_seq_len) if reached < max_seq_len else (),
        greedy=tuple(
            _greedy(g, max_seq_len) for g in index.greedy if len(g.prompt_ids) <= max_seq_len
        ),
    )


def _decode(sequence: ReferenceSequence, prefill: int, steps: int, role: str) -> Check:
    count = min(steps, len(sequence.token_ids) - prefill)
    name = f"{role}: prefill of {prefill}, then {count} decode steps"
    calls = (prefill,) + (1,) * count
    return _check(name, sequence, calls, role)


def _odd(sequence: ReferenceSequence, chunk: int) -> int:
    """Return an odd prefill length of about half the sequence, at most the chunk."""
    half = min(len(sequence.token_ids) // 2, chunk)
    return max(1, half - 1 + half % 2)


def _longest(sequence: ReferenceSequence, chunk: int) -> Check:
    length = len(sequence.token_ids)
    name = f"longest: prefill of {length}"
    name += f" in chunks of {chunk}" if length > chunk else ""
    return _check(name, sequence, chunked(length, chunk), "longest")


def _end(sequence: ReferenceSequence, chunk: int, steps: int) -> Check:
    """Decode up to the last position, half of the sequence or 32 steps."""
    length = len(sequence.token_ids)
    tail = min(steps, max(length // 2, min(_STEPS_AT_END, length - 1)))
    name = f"end: prefill of {length - tail}, then {tail} decode steps to position {length - 1}"
    return _check(name, sequence, chunked(length - tail, chunk) + (1,) * tail, "end")


def _prefills(sequence: ReferenceSequence, decoded: Check, chunk: int) -> tuple[Check, ...]:
    """Return whole prefills that end where decode steps of `decoded` ended: first, middle, last."""
    first, last = decoded.item.calls[0] + 1, min(decoded.item.positions, chunk)
    lengths = sorted({first, (first + last) // 2, last}) if last >= first else []
    return tuple(
        _check(f"prefill of {n} in one call", sequence, (n,), "prefill against decode")
        for n in lengths
    )


def _whole(sequences: list[ReferenceSequence], chunk: int, max_seq_len: int) -> tuple[Check, ...]:
    """Return the two ways: in whole chunks, and in about half ones that divide nothing evenly."""
    if chunk == 1:
        return ()  # there is one way only
    ids = [i for s in sequences for i in s.token_ids]
    tokens = tuple(ids[position % len(ids)] for position in range(max_seq_len))
    tail = min(_TAIL_STEPS, max_seq_len - 1)
    sequence = ReferenceSequence(name="whole cache", token_ids=tokens)
    odd = max(1, chunk // 2 | 1)
    checks = []
    for size in (chunk, odd if odd < chunk else 1):
        calls = chunked(max_seq_len - tail, size) + (1,) * tail
        name = f"whole cache: {max_seq_len} tokens in chunks of {size}, {tail} decode steps"
        checks.append(_check(name, sequence, calls, "whole cache"))
    return tuple(checks)


def _check(name: str, sequence: ReferenceSequence, calls: tuple[int, ...], role: str) -> Check:
    return Check(Teacher(name=name, token_ids=sequence.token_ids, calls=calls), sequence.name, role)


def _greedy(reference: GreedyReference, max_seq_len: int) -> tuple[Generate, GreedyReference]:
    room = max_seq_len - len(reference.prompt_ids) + 1
    item = Generate(
        name=f"greedy: {reference.name}, {reference.variant}",
        token_ids=reference.prompt_ids,
        max_new_tokens=max(1, min(len(reference.token_ids), room)),
        stop_ids=reference.stop_ids,
    )
    return item, reference
