"""Short stories and descriptions, with questions that the story itself answers."""

from dataclasses import dataclass
from random import Random
from typing import Final

from mobilepack.models.zoo.corpus.grammar import Writer


@dataclass(frozen=True, slots=True)
class Story:
    """A story and (question, answer) pairs; every answer is stated in the text."""

    text: str
    questions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Plot:
    beats: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


_OPENING: Final = (
    "[One|On a] {weather} {time}, {name1} [went to|walked to|was in] the {place1}",
    "{name1} [lived|had a small house] near the {place1}. [One|On a] {weather} {time}, "
    "{name1} [went out|woke up early|left home]",
    "[Once upon a time|Long ago], there was a {trait} {job} [called|named] {name1}. "
    "{name1} [worked|lived] near the {place1}",
)
_FEELING: Final = (
    "{name1} [was|felt] {mood1}.",
    "{name1} was {mood1}, [but|and] {name2} was {mood2}.",
    '"I am {mood1}," said {name1}.',
    "It was a {weather} {time}, and the {place1} was [quiet|busy|empty|full of people].",
)
_ENDING: Final = (
    "[In the end|At last|That evening], {name1} and {name2} [ate|shared] {food1} and [went home|"
    "talked until night|laughed together].",
    "{name1} never forgot that {time}.",
    "From that day on, {name1} and {name2} were [good|best] friends.",
    "[Everyone|They all] went home [happy|tired but happy|before dark].",
    '"[What a day|That was fun|Let us come again]!" said {name2}.',
)

_PLOTS: Final = (
    _Plot(
        (
            "{name1} had a {adj1} {colour1} {object1}. [One day|That {time}], the {object1} "
            "[was gone|was lost|could not be found].",
            "{name1} [asked|called] {name2} for help. They looked in the {place2}, [but it was not "
            "there|but they found only a {object2}].",
            "Then [a|the] {trait} {animal1} [came|ran up] and [showed them the way|pointed] to "
            "the {place3}.",
            "The {colour1} {object1} was in the {place3}, [under|behind|next to] a {adj2} "
            "{object3}. {name1} [thanked|hugged] the {animal1}.",
        ),
        (
            ("Who lost the {object1}?", "{name1}"),
            ("What colour was the {object1}?", "{colour1}"),
            ("Where was the {object1}?", "in the {place3}"),
            ("Which animal helped {name1}?", "the {animal1}"),
        ),
    ),
    _Plot(
        (
            "{name1} wanted to buy {food1}. [The market was full of people|There was a long line]. "
            "{name1} had {count1} coins.",
            "{name2} sold {food1} and {food2}. {name1} gave {name2} {count2} coins and got "
            "[a basket|a box|a bag] of {food1}.",
            "On the way home, {name1} met {name3}, who was [very hungry|cold and hungry]. {name1} "
            "[shared|gave away some of] the {food1}.",
            "{name3} gave {name1} a {adj1} {object1} [as thanks|in return].",
        ),
        (
            ("Who sold {food1}?", "{name2}"),
            ("How many coins did {name1} have?", "{count1}"),
            ("What did {name1} buy?", "{food1}"),
            ("What did {name3} give {name1}?", "a {object1}"),
        ),
    ),
    _Plot(
        (
            "{name1} had a pet {animal1} [called|named] {name3}. {name3} liked to eat {food1}.",
            "[One|That] {time}, {name3} ran away to the {place2}. {name1} [was very sad|looked "
            "everywhere|called and called].",
            "{name2}, the {job}, had seen the {animal1} near the {place2}. [They went there at "
            "once|They took some {food1} and went there].",
            "{name3} was [asleep|hiding|playing] under a {colour1} {object1}. [Everyone was glad|"
            "{name1} was happy again].",
        ),
        (
            ("What was the {animal1} called?", "{name3}"),
            ("What did {name3} like to eat?", "{food1}"),
            ("Where did {name3} run?", "to the {place2}"),
            ("Who had seen the {animal1}?", "{name2}"),
        ),
    ),
    _Plot(
        (
            "{name1} and {name2} [decided|wanted] to build a [boat|house|cart|tower]. They needed "
            "a {object1} and a {object2}.",
            "The {object1} was in the {place2}. The {object2} was in the {place3}.",
            "{name1} [went|ran] to the {place2} and {name2} [went|ran] to the {place3}. [Soon|By "
            "noon] they had [everything|all they needed].",
            "They worked for {count1} days. They painted it {colour1}. [All the children came to "
            "look|It was the best in the village].",
        ),
        (
            ("Where was the {object1}?", "in the {place2}"),
            ("Where was the {object2}?", "in the {place3}"),
            ("How many days did they work?", "{count1}"),
            ("What colour did they paint it?", "{colour1}"),
        ),
    ),
    _Plot(
        (
            "It was the birthday of {name2}. {name1} [wanted to give|had made] {name2} a {colour1} "
            "{object1}.",
            "{name3} brought {food1}, and the {animal1} from the {place2} [came too|sang a song].",
            '"[Thank you|How lovely]!" said {name2}. "[A|This] {colour1} {object1} is what I '
            '[wanted|needed]."',
            "They [danced|played|sang] in the {place2} until [night|the moon came up|it was dark].",
        ),
        (
            ("Whose birthday was it?", "{name2}"),
            ("What did {name1} give {name2}?", "a {object1}"),
            ("Who brought {food1}?", "{name3}"),
            ("What colour was the {object1}?", "{colour1}"),
        ),
    ),
    _Plot(
        (
            "A {animal1} and a {animal2} wanted to know who was [faster|the faster one]. {name1} "
            '[said|told them]: "Run to the {place2}!"',
            "The {animal1} was {mood1}. The {animal2} was {mood2}. [They ran|Off they went] past "
            "the {place3}.",
            "[Half way|Near the {place3}], the {animal2} stopped to eat {food1}. The {animal1} "
            "did not stop.",
            "The {animal1} won, and {name1} gave it a {colour1} {object1}. [The {animal2} laughed "
            "too|Next time the {animal2} will not stop].",
        ),
        (
            ("Who won?", "the {animal1}"),
            ("Where did they run?", "to the {place2}"),
            ("Who stopped to eat?", "the {animal2}"),
            ("What did the {animal2} eat?", "{food1}"),
        ),
    ),
)

_DESCRIPTION: Final = (
    "The {place1} is [a|always a] {trait} place for [children|animals|the {job1}]. It has {count1} "
    "[doors|trees|steps|gates|lamps].",
    "[In the middle|Near the {place1}] there is a {adj1} {colour1} {object1}.",
    "{name1} the {job1} [works|sits|comes] there every {day1}.",
    "[People say|They say] that a {animal1} lives there and eats {food1}.",
    "In {month1} it is [often|usually|always] {weather}.",
    "The {object2} of {name1} is {colour2}, and the {object3} of {name2} is {colour3}.",
    "{name2} [likes|loves] {food2} but [does not like|never eats] {food3}.",
    "There are {count2} {herd1} in the {place2} and {count3} {herd2} in the {place3}.",
)


def story(rng: Random) -> Story:
    """Write one story of about 12 sentences."""
    writer = Writer(rng)
    plot = rng.choice(_PLOTS)
    parts = [writer.write(rng.choice(_OPENING)) + "."]
    for index, beat in enumerate(plot.beats):
        parts.append(writer.write(beat))
        if index in (0, 2) and rng.random() < 0.7:
            parts.append(writer.write(rng.choice(_FEELING)))
    parts += [writer.write(end) for end in rng.sample(_ENDING, rng.choice((1, 2)))]
    questions = tuple((writer.write(q), writer.fill(a)) for q, a in plot.questions)
    return Story(" ".join(parts), questions)


def description(rng: Random) -> str:
    """Describe a place, its people and its animals in four to seven sentences."""
    writer = Writer(rng)
    return " ".join(writer.write(s) for s in rng.sample(_DESCRIPTION, rng.randint(4, 7)))
