"""A little task set with one right answer each, none of it seen in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from mobilepack.models.zoo.corpus.drills import MAKERS
from mobilepack.models.zoo.corpus.grammar import Message, is_held_out

KINDS: Final = tuple(kind for kind in MAKERS if kind != "subtract")
MAX_ANSWER_TOKENS: Final = 24
# Enough to meet every held-out fact: a closed world holds only so many.
_TRIES: Final = 4000


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One question: its kind, the chat to answer, and the exact answer."""

    kind: str
    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How many answers are exactly right, in all and by kind."""

    right: int
    asked: int
    by_kind: Mapping[str, tuple[int, int]]

    @property
    def share(self) -> float:
        """Return the right answers' share, 0 to 1."""
        return self.right / self.asked if self.asked else 0.0


def _items(kind: str, limit: int) -> list[TaskItem]:
    found: dict[str, TaskItem] = {}
    for index in range(_TRIES):
        if len(found) == limit:
            break
        drill = MAKERS[kind](Random(f"task {kind} {index}"))
        if is_held_out(drill.key):
            found[drill.key] = TaskItem(kind, (Message("user", drill.question),), drill.answer)
    return list(found.values())


def tasks(limit_per_kind: int = 20) -> tuple[TaskItem, ...]:
    """Return the held-out items, up to 30 of each kind, always the same ones in the same order."""
    limit = min(limit_per_kind, 30)
    return tuple(item for kind in KINDS for item in _items(kind, limit))


def normalise(text: str) -> str:
    """Drop case, outer space, repeated space and the closing full stop."""
    return " ".join(text.split()).rstrip(".").strip().casefold()


def score(items: Sequence[TaskItem], answers: Sequence[str]) -> TaskScore:
    """Compare answers with the items', pairwise and exactly, after ``normalise``.

    Raises:
        ValueError: the two sequences differ in length.
    """
    by_kind: dict[str, tuple[int, int]] = {}
    for item, answer in zip(items, answers, strict=True):
        right, asked = by_kind.get(item.kind, (0, 0))
        hit = normalise(answer) == normalise(item.answer)
        by_kind[item.kind] = (right + hit, asked + 1)
    return TaskScore(sum(r for r, _ in by_kind.values()), len(items), by_kind)
