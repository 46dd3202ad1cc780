"""Expand templates into sentences, deterministically from a random generator.

A template is a sentence with alternatives, ``[one|two]``, and slots, ``{place}``. Alternatives may
nest. A slot keeps its word for the whole text, so that a story stays about the same people.
"""

import re
from dataclasses import dataclass
from hashlib import blake2s
from random import Random
from typing import Final

from mobilepack.models.zoo.corpus.words import POOLS

_ALTERNATIVES: Final = re.compile(r"\[([^\[\]]*)\]")
_SLOT: Final = re.compile(r"\{(\w+)\}")
_ARTICLE: Final = re.compile(r"\b([Aa]) (?=[aeiou])")
_SENTENCE_START: Final = re.compile(r"(^|[.!?] )([a-z])")
_HELD_OUT_SHARE: Final = 16


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: who speaks (``system``, ``user`` or ``assistant``) and what is said."""

    role: str
    content: str


Chat = tuple[Message, ...]
Document = str | Chat


def is_held_out(key: str) -> bool:
    """Say whether a text or a task belongs to the held-out split: one key in 16 does.

    The rule depends on the key alone, so the two splits cannot meet, whatever the seed.
    """
    return blake2s(key.encode()).digest()[0] % _HELD_OUT_SHARE == 0


def exchange(question: str, answer: str) -> Chat:
    """Make one question and its answer into two messages."""
    return (Message("user", question), Message("assistant", answer))


def polish(text: str) -> str:
    """Put ``an`` before a vowel and a capital at the start of each sentence."""
    text = _ARTICLE.sub(r"\1n ", text)
    return _SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)


class Writer:
    """Expands templates; remembers the word chosen for each slot.

    A slot is a pool's name, with digits after it where several different words of one pool are
    needed: ``{name1}`` and ``{name2}`` are never equal.
    """

    def __init__(self, rng: Random) -> None:
        """Start with no slot filled; every choice is drawn from ``rng``."""
        self.rng = rng
        self.slots: dict[str, str] = {}

    def word(self, slot: str) -> str:
        """Return the slot's word, choosing one not used yet by another slot of its pool."""
        if slot not in self.slots:
            pool = POOLS[slot.rstrip("0123456789")]
            used = set(self.slots.values())
            word = self.rng.choice(pool)
            while word in used:
                word = self.rng.choice(pool)
            self.slots[slot] = word
        return self.slots[slot]

    def write(self, template: str) -> str:
        """Return one expansion of the template."""
        while "[" in template:
            template = _ALTERNATIVES.sub(lambda m: self.rng.choice(m.group(1).split("|")), template)
        return polish(self.fill(template))

    def fill(self, template: str) -> str:
        """Fill the slots only; leave capitals as they are."""
        return _ARTICLE.sub(r"\1n ", _SLOT.sub(lambda m: self.word(m.group(1)), template))
