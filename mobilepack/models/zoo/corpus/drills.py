"""Exactly answerable questions: arithmetic, recall, copying and the like.

A drill's ``key`` names what must not be shared between training and the task set: its operands, not
its wording (``grammar.is_held_out``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from mobilepack.models.zoo.corpus.facts import FACTS
from mobilepack.models.zoo.corpus.grammar import polish
from mobilepack.models.zoo.corpus.stories import story
from mobilepack.models.zoo.corpus.words import LETTERS, OBJECTS, PLAIN


@dataclass(frozen=True, slots=True)
class Drill:
    """A question with one right answer."""

    kind: str
    question: str
    answer: str
    key: str


def _add(rng: Random) -> Drill:
    total = rng.randint(0, 99)
    a = rng.randint(0, total)
    b = total - a
    question = rng.choice(("What is {} + {}?", "{} + {} = ?")).format(a, b)
    return Drill("add", question, str(total), f"add {min(a, b)} {max(a, b)}")


def _subtract(rng: Random) -> Drill:
    a = rng.randint(0, 30)
    b = rng.randint(0, a)
    question = rng.choice(("What is {} - {}?", "{} - {} = ?")).format(a, b)
    return Drill("subtract", question, str(a - b), f"subtract {a} {b}")


def _next(rng: Random) -> Drill:
    n = rng.choice((rng.randint(1, 99), rng.randint(100, 999)))
    word, step = rng.choice((("after", 1), ("before", -1)))
    return Drill("next", f"What number comes {word} {n}?", str(n + step), f"next {word} {n}")


def _lookup(rng: Random) -> Drill:
    names = rng.sample(OBJECTS, rng.randint(2, 5))
    values = rng.sample(range(10, 100), len(names))
    pairs = [f"{n} is {v}" for n, v in zip(names, values, strict=True)]
    index = rng.randrange(len(names))
    question = f"{', '.join(pairs)}. Find {names[index]}."
    return Drill("lookup", question, pairs[index], ", ".join(pairs))


def _recall(rng: Random) -> Drill:
    names = rng.sample(OBJECTS, rng.randint(2, 5))
    values = rng.sample(range(10, 100), len(names))
    index = rng.randrange(len(names))
    pairs = ", ".join(f"{n} is {v}" for n, v in zip(names, values, strict=True))
    return Drill("recall", f"{pairs}. What is {names[index]}?", str(values[index]), pairs)


def _copy(rng: Random) -> Drill:
    pool = rng.choice((PLAIN, PLAIN, LETTERS))
    text = " ".join(rng.sample(pool, rng.randint(3, 7)))
    return Drill("copy", f"Repeat: {text}", text, f"copy {text}")


def _reverse(rng: Random) -> Drill:
    items = rng.sample(LETTERS, rng.randint(3, 5))
    text = " ".join(items)
    return Drill("reverse", f"Reverse: {text}", " ".join(items[::-1]), f"reverse {text}")


def _sort(rng: Random) -> Drill:
    items = rng.sample("0123456789", rng.randint(3, 5))
    text = " ".join(items)
    return Drill("sort", f"Sort: {text}", " ".join(sorted(items)), f"sort {text}")


def _count(rng: Random) -> Drill:
    items = [rng.choice(LETTERS) for _ in range(rng.randint(2, 9))]
    text = " ".join(items)
    return Drill("count", f"Count: {text}", str(len(items)), f"count {text}")


def _largest(rng: Random) -> Drill:
    items = rng.sample(range(10, 100), rng.choice((2, 3, 3)))
    text = ", ".join(map(str, items))
    return Drill("largest", f"Which is largest: {text}?", str(max(items)), f"largest {text}")


def _fact(rng: Random) -> Drill:
    fact = rng.choice(FACTS)
    question = polish(rng.choice(fact.questions))
    return Drill("fact", question, fact.answer, f"fact {question}")


def _story(rng: Random) -> Drill:
    told = story(rng)
    question, answer = rng.choice(told.questions)
    return Drill("story", f"{told.text} {question}", answer, told.text)


MAKERS: Final[dict[str, Callable[[Random], Drill]]] = {
    "add": _add,
    "subtract": _subtract,
    "next": _next,
    "recall": _recall,
    "lookup": _lookup,
    "copy": _copy,
    "reverse": _reverse,
    "sort": _sort,
    "count": _count,
    "largest": _largest,
    "fact": _fact,
    "story": _story,
}
