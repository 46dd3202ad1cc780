"""The generated text: deterministic, original, and split without overlap."""

import subprocess
import sys
from itertools import islice
from random import Random

import pytest

from mobilepack.models.zoo.corpus import (
    Document,
    calibration_text,
    held_out_text,
    is_held_out,
    train_documents,
)
from mobilepack.models.zoo.corpus.drills import MAKERS
from mobilepack.models.zoo.corpus.facts import FACTS
from mobilepack.models.zoo.corpus.grammar import Writer
from mobilepack.models.zoo.corpus.stories import story
from mobilepack.models.zoo.tasks import tasks


def _texts(document: Document) -> tuple[str, ...]:
    return (document,) if isinstance(document, str) else tuple(m.content for m in document)


def test_the_same_seed_gives_the_same_documents_and_another_seed_gives_others() -> None:
    first = list(islice(train_documents(3), 50))
    assert first == list(islice(train_documents(3), 50))
    assert first != list(islice(train_documents(4), 50))


def test_chats_alternate_between_user_and_assistant_after_an_optional_system_message() -> None:
    chats = [d for d in islice(train_documents(0), 400) if not isinstance(d, str)]
    assert chats
    for chat in chats:
        turns = chat[1:] if chat[0].role == "system" else chat
        assert [m.role for m in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(m.content for m in turns)


def test_held_out_texts_are_distinct_and_never_in_training() -> None:
    held_out = held_out_text(100)
    assert len(set(held_out)) == 100
    assert all(is_held_out(text) for text in held_out)
    seen = {text for d in islice(train_documents(0), 3000) for text in _texts(d)}
    assert not seen & set(held_out)


def test_tasks_are_never_asked_in_training() -> None:
    asked = {item.messages[-1].content for item in tasks()}
    seen = {text for d in islice(train_documents(0), 5000) for text in _texts(d)}
    assert not seen & asked


def test_sums_with_swapped_operands_or_another_wording_share_one_key() -> None:
    keys: dict[frozenset[str], set[str]] = {}
    for index in range(2000):
        drill = MAKERS["add"](Random(index))
        operands = frozenset(part for part in drill.question.split() if part.strip("?").isdigit())
        operands = frozenset(part.strip("?") for part in operands)
        keys.setdefault(operands, set()).add(drill.key)
    assert all(len(found) == 1 for found in keys.values())


def test_calibration_text_comes_from_the_training_split() -> None:
    texts = calibration_text(20)
    assert len(texts) == 20
    assert not any(is_held_out(text) for text in texts)


def test_every_answer_about_a_story_stands_in_the_story() -> None:
    for index in range(200):
        told = story(Random(index))
        for _, answer in told.questions:
            assert answer.split()[-1] in told.text, told


def test_no_two_facts_give_different_answers_to_one_question() -> None:
    answers: dict[str, str] = {}
    for fact in FACTS:
        for question in fact.questions:
            assert answers.setdefault(question, fact.answer) == fact.answer


@pytest.mark.parametrize("kind", MAKERS)
def test_drills_are_deterministic_and_have_an_answer(kind: str) -> None:
    drill = MAKERS[kind](Random(5))
    assert drill == MAKERS[kind](Random(5))
    assert drill.kind == kind
    assert drill.answer


def test_a_writer_never_gives_two_slots_the_same_word() -> None:
    writer = Writer(Random(0))
    names = [writer.word(f"name{i}") for i in range(1, 20)]
    assert len(set(names)) == len(names)
    assert writer.word("name1") == names[0]


def test_the_corpus_imports_neither_torch_nor_tokenizers() -> None:
    code = (
        "import sys, mobilepack.models.zoo.tasks;"
        "print([m for m in ('torch', 'tokenizers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
