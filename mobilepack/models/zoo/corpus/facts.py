"""Small closed worlds of facts that the model is meant to know by heart."""

from dataclasses import dataclass
from typing import Final

from mobilepack.models.zoo.corpus.words import DAYS, MONTHS, NUMBER_WORDS


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: ways to ask for it, the exact answer, and ways to state it."""

    questions: tuple[str, ...]
    answer: str
    statement: str


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((a.strip(), b.strip()) for a, b in (item.split(":") for item in text.split(",")))


_CAPITALS: Final = _pairs(
    "France:Paris, Italy:Rome, Spain:Madrid, Germany:Berlin, Japan:Tokyo, Korea:Seoul, "
    "China:Beijing, Egypt:Cairo, Greece:Athens, Norway:Oslo, Sweden:Stockholm, Finland:Helsinki, "
    "Poland:Warsaw, Austria:Vienna, Portugal:Lisbon, Ireland:Dublin, Peru:Lima, Cuba:Havana, "
    "Kenya:Nairobi, Canada:Ottawa"
)
_SOUNDS: Final = _pairs(
    "cat:meow, dog:woof, cow:moo, duck:quack, sheep:baa, pig:oink, hen:cluck, owl:hoot, frog:croak,"
    " mouse:squeak, crow:caw, horse:neigh"
)
_OPPOSITES: Final = _pairs(
    "hot:cold, big:small, old:new, fast:slow, happy:sad, light:dark, up:down, open:closed, "
    "wet:dry, hard:soft, early:late, full:empty, long:short, rich:poor, strong:weak, high:low, "
    "left:right, day:night, inside:outside, loud:quiet"
)
_COLOURS: Final = _pairs(
    "grass:green, snow:white, coal:black, blood:red, a lemon:yellow, the clear sky:blue, "
    "an orange:orange, chocolate:brown"
)
_YOUNG: Final = _pairs(
    "cat:kitten, dog:puppy, cow:calf, sheep:lamb, horse:foal, hen:chick, goat:kid, bear:cub, "
    "duck:duckling, pig:piglet, goose:gosling, swan:cygnet"
)
_LEGS: Final = _pairs("spider:8, cat:4, bird:2, ant:6, horse:4, duck:2, bee:6, frog:4")


def _ring(words: tuple[str, ...], noun: str) -> list[Fact]:
    facts = []
    for word, after in zip(words, words[1:] + words[:1], strict=True):
        ask = (f"What {noun} comes after {word}?", f"Which {noun} follows {word}?")
        facts.append(Fact(ask, after, f"After {word} comes {after}."))
        ask = (f"What {noun} comes before {after}?", f"Which {noun} is just before {after}?")
        facts.append(Fact(ask, word, f"Before {after} comes {word}."))
    return facts


def _asked(answer: str, statement: str, *questions: str) -> Fact:
    return Fact(questions, answer, statement)


def _countries() -> list[Fact]:
    facts = []
    for land, city in _CAPITALS:
        names = (f"What is the capital of {land}?", f"Name the capital of {land}.")
        statement = f"The capital of {land} is {city}."
        facts.append(_asked(city, statement, *names, f"Capital of {land}?"))
        ask = (f"Which country has the capital {city}?", f"{city} is the capital of which country?")
        facts.append(_asked(land, f"{city} is the capital of {land}.", *ask))
    return facts


def _sounds() -> list[Fact]:
    facts = []
    for a, b in _SOUNDS:
        ask = (f"What does a {a} say?", f"What sound does a {a} make?", f"Sound of a {a}?")
        facts.append(_asked(b, f"A {a} says {b}.", *ask))
    return facts


def _creatures() -> list[Fact]:
    facts = []
    for a, b in _YOUNG:
        ask = (f"What is a young {a} called?", f"Name of a young {a}?", f"What is a baby {a}?")
        facts.append(_asked(b, f"A young {a} is called a {b}.", *ask))
    for a, b in _LEGS:
        many = (f"How many legs does a {a} have?", f"Count the legs of a {a}.")
        facts.append(_asked(b, f"A {a} has {b} legs.", *many))
    return facts


def _qualities() -> list[Fact]:
    facts = []
    for a, b in _OPPOSITES:
        ask = (f"What is the opposite of {a}?", f"Opposite of {a}?", f"Name the opposite of {a}.")
        facts.append(_asked(b, f"The opposite of {a} is {b}.", *ask))
    for a, b in _COLOURS:
        ask = (f"What colour is {a}?", f"Colour of {a}?", f"Name the colour of {a}.")
        facts.append(_asked(b, f"The colour of {a} is {b}.", *ask))
    return facts


def _numbers() -> list[Fact]:
    return [
        _asked(
            word,
            f"The number {number} is written {word}.",
            f"Write {number} as a word.",
            f"Spell the number {number}.",
        )
        for number, word in enumerate(NUMBER_WORDS)
    ]


def _all_facts() -> tuple[Fact, ...]:
    rings = _ring(DAYS, "day") + _ring(MONTHS, "month")
    return tuple(rings + _countries() + _sounds() + _qualities() + _creatures() + _numbers())


FACTS: Final = _all_facts()
