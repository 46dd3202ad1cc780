"""A conversation feeds only what is new, streams text, and forgets the oldest when it is full."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from mobilepack.commands.chat import Chat, ChatOptions
from mobilepack.contract.package import open_package
from mobilepack.errors import UsageError
from mobilepack.harness.runner import greedy, prefill
from mobilepack.harness.talk import End, Request, Token
from mobilepack.testing import ToyModel
from tests.packages import VOCAB, toy_package


class FakeSession:
    """Generates with the toy model in this process, or says what it is told to."""

    load_ns = 2_000_000

    def __init__(self, scripted: tuple[int, ...] = ()) -> None:
        self.requests: list[Request] = []
        self.closed = False
        self.model = ToyModel(VOCAB)
        self.scripted = scripted

    def generate(self, request: Request) -> Generator[Token | End, None, None]:
        self.requests.append(request)
        logits = prefill(self.model, np.array(request.token_ids), request.position, 16)
        position, made = request.position + len(request.token_ids), 0
        while True:
            token = self.scripted[made] if self.scripted else greedy(logits)
            made += 1
            yield Token(id=token, ns=made * 1_000_000)
            if token in request.stop_ids or made == request.max_new_tokens:
                break
            logits = self.model(np.array([token]), position)
            position += 1
        yield End(
            positions=position, new_tokens=made, stopped=token in request.stop_ids, cancelled=False
        )

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return toy_package(tmp_path / "p")


def _chat(
    package: Path, options: ChatOptions, scripted: tuple[int, ...] = ()
) -> tuple[Chat, FakeSession]:
    session = FakeSession(scripted)
    return Chat(open_package(package), session, options), session


HI = (10, 11, 2)  # "h", "i", <end>


def test_an_answer_is_streamed_without_its_stop_token(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(), HI)
    assert list(chat.say("abc")) == ["h", "i"]
    assert session.requests[0].token_ids == (1, 3, 4, 5)
    stats = chat.stats
    assert stats is not None
    assert (stats.prompt_tokens, stats.cached_tokens, stats.new_tokens) == (4, 0, 3)
    assert stats.stopped
    assert stats.ttft_ms == 1.0
    assert stats.prefill_tok_per_s == pytest.approx(4000)
    assert stats.decode_tok_per_s == pytest.approx(1000)
    assert chat.load_ms == 2.0


def test_only_new_tokens_are_fed_when_the_conversation_goes_on(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(), HI)
    list(chat.say("abc"))
    list(chat.say("d"))
    second = session.requests[1]
    # The cache holds "<user>abc" and "hi"; the stop token was said but never fed.
    assert second.position == 6
    assert second.token_ids == (2, 1, 6)
    assert chat.stats is not None
    assert chat.stats.cached_tokens == 6
    whole = np.array([1, 3, 4, 5, 10, 11, 2, 1, 6])
    np.testing.assert_array_equal(
        ToyModel(VOCAB)(whole, 0), session.model(np.array([6]), 8)
    )  # what is in the cache is what was said


def test_a_conversation_that_does_not_extend_the_cache_starts_over(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(), HI)
    list(chat.say("abc"))
    chat.reset()
    list(chat.say("b"))
    assert (session.requests[1].position, session.requests[1].token_ids) == (0, (1, 4))


def test_an_answer_cut_short_is_kept_and_the_cache_is_not_trusted(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(), HI)
    pieces = chat.say("abc")
    assert next(pieces) == "h"
    pieces.close()  # type: ignore[attr-defined]
    list(chat.say("d"))
    second = session.requests[1]
    assert second.position == 0
    assert second.token_ids == (1, 3, 4, 5, 10, 2, 1, 6)
    assert chat.stats is not None
    assert chat.totals().new_tokens == 1 + 3


def test_the_limit_is_said_and_the_last_token_is_fed_next_time(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(max_new_tokens=2), HI)
    assert "".join(chat.say("abc")) == "hi"
    assert chat.stats is not None
    assert not chat.stats.stopped
    list(chat.say("d"))
    assert session.requests[1].position == 5
    assert session.requests[1].token_ids == (11, 2, 1, 6)


def test_the_oldest_messages_go_when_the_context_is_full(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(system="s", max_new_tokens=8), HI)
    for text in ("a" * 20, "b" * 20, "c" * 20):
        list(chat.say(text))
    assert chat.stats is not None
    assert chat.stats.dropped_messages == 2
    ids = session.requests[-1].token_ids
    assert session.requests[-1].position == 0
    assert 21 in ids  # the system message stays
    assert 3 not in ids  # the a's are gone
    assert 4 in ids


def test_a_message_longer_than_the_context_is_an_error_and_forgotten(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(), HI)
    with pytest.raises(UsageError, match="does not fit"):
        list(chat.say("a" * 64))
    assert list(chat.say("a" * 63)) == ["h"]  # the last new token needs no position
    assert [r.max_new_tokens for r in session.requests] == [1]


def test_raw_text_is_fed_without_the_template(package: Path) -> None:
    chat, session = _chat(package, ChatOptions(raw=True), HI)
    list(chat.say("abc"))
    assert session.requests[0].token_ids == (3, 4, 5)


def test_sampling_options_reach_the_model_with_a_seed_per_answer(package: Path) -> None:
    options = ChatOptions(temperature=0.7, top_p=0.9, seed=5, max_new_tokens=3)
    chat, session = _chat(package, options, HI)
    list(chat.say("a"))
    list(chat.say("b"))
    assert [(r.temperature, r.top_p, r.seed) for r in session.requests] == [
        (0.7, 0.9, 5),
        (0.7, 0.9, 6),
    ]


def test_leaving_closes_the_session(package: Path) -> None:
    chat, session = _chat(package, ChatOptions())
    with chat:
        pass
    assert session.closed
