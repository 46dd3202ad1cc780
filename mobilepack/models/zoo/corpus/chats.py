"""Chats: greetings, who the model is, stories on request and questions about a story just told."""

from random import Random
from typing import Final

from mobilepack.models.zoo.corpus.drills import MAKERS
from mobilepack.models.zoo.corpus.grammar import Chat, Message, Writer, exchange, is_held_out
from mobilepack.models.zoo.corpus.mix import Mix
from mobilepack.models.zoo.corpus.stories import description, story

_GREETINGS: Final = (
    (
        "[Hello|Hi|Hey|Hello there|Good {time}][|!|.]",
        "Hello! How can I help you [today|]?",
    ),
    (
        "[Hello|Hi], [I am|my name is] {name}[.|!]",
        "Hello, {name}! How can I help you?",
    ),
    ("[How are you|How do you do|How are you today]?", "I am well, thank you. How are you?"),
    ("[Thank you|Thanks|Thank you very much|Thanks a lot][!|.|]", "You are welcome!"),
    ("[Goodbye|Bye|Good night|See you later][!|.|]", "Goodbye! Have a nice {time}."),
    ("[I am|I feel] {mood} today.", "You feel {mood}. Would you like to hear a story?"),
    ("I like {food}.", "I do not eat, but {food} must be [good|nice]."),
    ("My favourite colour is {colour}.", "I will remember that: {colour}."),
    ("안녕하세요[|!]", "안녕하세요! 무엇을 도와드릴까요?"),
    ("안녕", "안녕! 만나서 반가워."),
    ("[고마워요|감사합니다]", "천만에요!"),
    ("이름이 뭐예요?", "저는 포켓이에요. 작은 언어 모델입니다."),
    ("[안녕히 가세요|잘 가요]", "안녕히 가세요!"),
)
_IDENTITY: Final = (
    (
        "[Who are you|What are you|Tell me about yourself|Please introduce yourself][?|.]",
        "I am Pocket, a small language model that ships with mobilepack.",
    ),
    ("[What is your name|Do you have a name|What are you called]?", "My name is Pocket."),
    ("[Who made you|Who trained you]?", "I was trained by the mobilepack project."),
    ("[Are you a person|Are you human]?", "No, I am a small language model."),
    (
        "[What can you do|How can you help me|What are you good at]?",
        "I can tell short stories, answer simple questions, add numbers and repeat words.",
    ),
    ("[How big|How large] are you?", "I am very small. I fit in any pocket."),
    ("[Where do you run|Where do you live]?", "I run on a phone, without the network."),
)
_ASK_STORY: Final = "[Tell me|Please tell me|Write|I want to hear] a [|short |new ]story[.|!|]"
_ASK_ABOUT: Final = "[Tell me|Please tell me|Write] a [|short ]story about {name1}[.|]"
_ASK_PLACE: Final = "[Describe a place|Tell me about a place|Describe a town][.|]"
_READ: Final = ("Read this: ", "Here is a story. ", "Listen. ", "")
_SYSTEM: Final = (
    "You are a helpful assistant.",
    "You are Pocket, a small language model.",
    "Answer briefly.",
)


def drill_turn(rng: Random, mix: Mix) -> Chat:
    """Ask one drill, never a held-out one."""
    while True:
        kind = rng.choices(tuple(mix.drills), tuple(mix.drills.values()))[0]
        drill = MAKERS[kind](rng)
        if not is_held_out(drill.key):
            return exchange(drill.question, drill.answer)


def small_talk(rng: Random) -> Chat:
    """Exchange a greeting, a thank-you, or a question about the model itself."""
    ask, reply = rng.choice(_GREETINGS if rng.random() < 0.5 else _IDENTITY)
    writer = Writer(rng)
    return exchange(writer.write(ask), writer.write(reply))


def reading(rng: Random) -> Chat:
    """Tell a story and ask two to four questions about it; empty if the story is held out."""
    told = story(rng)
    if is_held_out(told.text):
        return ()
    asked = rng.sample(told.questions, rng.randint(2, len(told.questions)))
    turns = [exchange(question, answer) for question, answer in asked]
    opening = rng.choice(_READ) + told.text + " " + turns[0][0].content
    turns[0] = exchange(opening, turns[0][1].content)
    return tuple(message for turn in turns for message in turn)


def telling(rng: Random) -> Chat:
    """Ask the model for a story or a description; empty if it is held out."""
    writer = Writer(rng)
    if rng.random() < 0.2:
        text = description(rng)
        ask = writer.write(_ASK_PLACE)
    else:
        text = story(rng).text
        ask = writer.write(_ASK_STORY)
    return () if is_held_out(text) else exchange(ask, text)


def echo(rng: Random) -> Chat:
    """Ask for one to three sentences back word for word; empty if the text is held out."""
    text = description(rng) if rng.random() < 0.5 else story(rng).text
    if is_held_out(text):
        return ()
    sentences = text.split(". ")
    start = rng.randrange(len(sentences))
    said = ". ".join(sentences[start : start + rng.randint(1, 3)]).rstrip(".") + "."
    return exchange(f"Repeat: {said}", said)


def drill_chat(rng: Random, mix: Mix) -> Chat:
    """Ask three to eight drills in a row, sometimes with small talk between."""
    turns: list[Chat] = []
    for _ in range(rng.randint(3, 8)):
        turns.append(small_talk(rng) if rng.random() < 0.05 else drill_turn(rng, mix))
    return tuple(message for turn in turns for message in turn)


def mixed_chat(rng: Random, mix: Mix) -> Chat:
    """Hold a chat of two to four turns of every sort, sometimes under a system message."""
    chat: Chat = ()
    if rng.random() < 0.3:
        chat = (Message("system", rng.choice(_SYSTEM)),)
    for _ in range(rng.randint(2, 4)):
        sort = rng.choices(("talk", "story", "drill"), (5, 2, 2))[0]
        if sort == "drill":
            chat += drill_turn(rng, mix)
        else:
            chat += small_talk(rng) if sort == "talk" else telling(rng)
    return chat
