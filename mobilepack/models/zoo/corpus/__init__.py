"""The embedded model's text: generated, original, seeded; needs only the standard library.

Held-out text and tasks never occur in training: see ``grammar.is_held_out``.
"""

from collections.abc import Iterator
from itertools import count, islice
from random import Random

from mobilepack.models.zoo.corpus.chats import drill_chat, echo, mixed_chat, reading
from mobilepack.models.zoo.corpus.facts import FACTS
from mobilepack.models.zoo.corpus.grammar import Chat, Document, Message, is_held_out, polish
from mobilepack.models.zoo.corpus.mix import MIXES, Mix, MixName
from mobilepack.models.zoo.corpus.stories import description, story

__all__ = [
    "Chat",
    "Document",
    "Message",
    "MixName",
    "calibration_text",
    "held_out_text",
    "is_held_out",
    "train_documents",
]


def _plain(rng: Random) -> str:
    """Write a story, a description, or a row of facts."""
    pick = rng.random()
    if pick < 0.65:
        return story(rng).text
    if pick < 0.9:
        return description(rng)
    return " ".join(polish(fact.statement) for fact in rng.sample(FACTS, rng.randint(4, 10)))


def _document(rng: Random, mix: Mix) -> Document:
    kind = rng.choices(tuple(mix.documents), tuple(mix.documents.values()))[0]
    if kind == "text":
        text = _plain(rng)
        return "" if is_held_out(text) else text
    if kind == "drills":
        return drill_chat(rng, mix)
    if kind == "mixed":
        return mixed_chat(rng, mix)
    return reading(rng) if kind == "reading" else echo(rng)


def train_documents(seed: int, mix: MixName = "even") -> Iterator[Document]:
    """Yield training documents without end: plain texts (``str``) and chats."""
    for index in count():
        document = _document(Random(f"train {seed} {index}"), MIXES[mix])
        if document:
            yield document


def _held_out_stream(split: str) -> Iterator[str]:
    for index in count():
        text = _plain(Random(f"{split} {index}"))
        if is_held_out(text):
            yield text


def held_out_text(texts: int) -> tuple[str, ...]:
    """Return that many plain texts (about 130 tokens each) that training never sees."""
    return tuple(islice(_held_out_stream("held out"), texts))


def calibration_text(texts: int, seed: int = 0) -> tuple[str, ...]:
    """Return that many texts of the training split, to calibrate quantisation on."""
    plain = (text for text in train_documents(seed) if isinstance(text, str))
    return tuple(islice(plain, texts))
