"""Talking: answers to stdout, the rest to stderr, and an interruption ends one answer only."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mobilepack.cli import chat as verb
from mobilepack.commands.chat import Chat, ChatStats

STATS = ChatStats(13, 0, 2, 9.5, 1444.0, 475.0, stopped=True, dropped_messages=0)


class FakeChat:
    """Echoes in two pieces; `stop` makes the second one an interruption."""

    load_ms = 5.0
    stats: ChatStats | None = STATS

    def __init__(self, *, stop: bool = False) -> None:
        self.said: list[str] = []
        self.resets = 0
        self.closed = 0
        self.stop = stop

    def say(self, text: str) -> Iterator[str]:
        """Answer."""
        self.said.append(text)
        try:
            yield "you said "
            if self.stop:
                raise KeyboardInterrupt
            yield text
        finally:
            self.closed += 1

    def reset(self) -> None:
        """Forget."""
        self.resets += 1


class Terminal(io.StringIO):
    """Typed lines."""

    def isatty(self) -> bool:
        return True


def _as_chat(fake: FakeChat) -> Chat:
    return cast(Chat, fake)


def test_an_answer_goes_to_stdout_and_its_speed_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb.answer(_as_chat(FakeChat()), "hello")
    captured = capsys.readouterr()
    assert captured.out == "you said hello\n"
    assert captured.err == (
        "[13 prompt tokens at 1444 tok/s, first answer after 10 ms, 2 tokens at 475 tok/s]\n"
    )


def test_what_cut_an_answer_off_is_said() -> None:
    text = verb.stats_text(ChatStats(1, 0, 256, 1, 1, 1, stopped=False, dropped_messages=3))
    assert "cut off at --max-new-tokens or the end of the context" in text
    assert "forgot 3 old messages" in text


def test_lines_of_a_pipe_are_answered_one_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\n/reset\ntwo\n/quit\nthree\n"))
    fake = FakeChat()
    verb.converse(_as_chat(fake))
    assert (fake.said, fake.resets) == (["one", "two"], 1)
    captured = capsys.readouterr()
    assert captured.out == "you said one\nyou said two\n"
    assert verb.HELP_LINE not in captured.err


def test_a_terminal_is_prompted_until_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("one\n"))
    verb.converse(_as_chat(FakeChat()))
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{verb.HELP_LINE}\n> ")
    assert captured.out == "you said one\n"


def test_an_interruption_ends_the_answer_and_not_the_conversation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("one\ntwo\n"))
    fake = FakeChat(stop=True)
    verb.converse(_as_chat(fake))
    assert (fake.said, fake.closed) == (["one", "two"], 2)
    assert capsys.readouterr().err.count("stopped; ") == 2


def test_an_interruption_of_a_pipe_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    fake = FakeChat(stop=True)
    with pytest.raises(KeyboardInterrupt):
        verb.converse(_as_chat(fake))
    assert fake.said == ["one"]


def test_one_document_holds_answer_and_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    verb.answer_as_document(_as_chat(FakeChat()), "hi")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["answer"] == "you said hi"
    assert document["stats"]["new_tokens"] == 2
    assert document["load_ms"] == 5.0
