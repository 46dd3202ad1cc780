"""chat: talk to a package on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from mobilepack.contract.package import Package, open_package
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import UsageError
from mobilepack.harness.base import Limits
from mobilepack.harness.host import HostSession
from mobilepack.harness.talk import End, Request, Token
from mobilepack.metrics.latency import tok_per_s
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer

_CONTEXT_IDS = 8  # ids before the answer that decide how its first word is spelled


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Options of `mobilepack chat`.

    Attributes:
        system: System message, None for the template's own.
        temperature: 0 is greedy.
        top_p: Nucleus; only with a temperature.
        seed: Of the sampler.
        max_new_tokens: Per answer.
        raw: Feed the text as it is, without the chat template.
        threads: 0 for one per physical core.
        timeout_s: Limit of the load and of each answer.
    """

    system: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256
    raw: bool = False
    threads: int = 0
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class ChatStats:
    """Counts and times of one answer, or of all of them.

    Attributes:
        prompt_tokens: Tokens fed for the prompt.
        cached_tokens: Prompt tokens that the KV cache already held.
        new_tokens: Tokens of the answer, the stop token included.
        ttft_ms: From the first token fed to the first new one; of all answers: their mean.
        stopped: Whether a stop token ended it (not the limit); of all answers: every one.
        dropped_messages: Old messages left out because the context was full.
    """

    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    ttft_ms: float
    prefill_tok_per_s: float
    decode_tok_per_s: float
    stopped: bool
    dropped_messages: int


class Session(Protocol):
    """A loaded program; see `HostSession`."""

    load_ns: int

    def generate(self, request: Request) -> Generator[Token | End, None, None]:
        """Yield the new tokens, then the end."""

    def close(self) -> None:
        """End it."""


@dataclass(slots=True)
class _Answer:
    """Tokens of one answer and when they came."""

    fed: int
    cached: int
    dropped: int
    ids: list[int]
    first_ns: int = 0
    last_ns: int = 0
    stopped: bool = False

    def stats(self) -> ChatStats:
        decode_ns = self.last_ns - self.first_ns
        return ChatStats(
            prompt_tokens=self.fed,
            cached_tokens=self.cached,
            new_tokens=len(self.ids),
            ttft_ms=self.first_ns / 1e6,
            prefill_tok_per_s=tok_per_s(self.fed, self.first_ns) if self.ids else 0.0,
            decode_tok_per_s=tok_per_s(len(self.ids) - 1, decode_ns) if decode_ns else 0.0,
            stopped=self.stopped,
            dropped_messages=self.dropped,
        )


class Chat:
    """A conversation with a package, in a child process that keeps the KV cache.

    Use: `with Chat.open(path, options) as chat: for text in chat.say("hello"): print(text)`, then
    `chat.stats` (last answer), `chat.load_ms`, `chat.totals()`.
    """

    def __init__(
        self, package: Package, session: Session, options: ChatOptions, log: Path | None = None
    ) -> None:
        """Wrap a session that has loaded the package's program; most callers want `open`.

        Raises:
            MissingError, UsageError: The package's tokenizer or chat template cannot be read.
        """
        self._session = session
        self._options = options
        self._log = log
        self._room = package.manifest.plan.max_seq_len
        self._tokenizer = Tokenizer.open(package.root)
        self._template = ChatTemplate(None) if options.raw else ChatTemplate.open(package.root)
        self._stop_ids = tuple(
            dict.fromkeys((*self._tokenizer.eos_ids, *package.manifest.tokenizer.eos_ids))
        )
        self._messages: list[ChatMessage] = []
        self._cached: list[int] = []
        self._answers: list[_Answer] = []
        self.load_ms = session.load_ns / 1e6
        self.reset()

    @classmethod
    def open(cls, path: Path, options: ChatOptions = ChatOptions()) -> Self:
        """Check the package, load tokenizer and program.

        Raises:
            MissingError, UsageError: As `open_package`.
            RunFailedError: The program cannot be loaded.
        """
        package = open_package(path)
        log = Path(tempfile.mkdtemp(prefix="mobilepack-chat-")) / "log.txt"
        build = package.manifest.plan
        plan = RunPlan(
            program=package.program.relative_to(package.root).as_posix(),
            max_seq_len=build.max_seq_len,
            prefill_chunk=build.prefill_chunk,
            threads=options.threads,
            weight_cache=package.weight_cache,
            items=(Teacher(name="unused", token_ids=(0,), calls=(1,)),),
        )
        limits = Limits.within(options.timeout_s)
        session = HostSession(package.root, plan, log=log, limits=limits)
        try:
            return cls(package, session, options, log)
        except BaseException:
            session.close()
            raise

    @property
    def stats(self) -> ChatStats | None:
        """Counts and times of the last answer."""
        return self._answers[-1].stats() if self._answers else None

    def say(self, text: str) -> Iterator[str]:
        """Add a user message and yield the answer piece by piece, as text.

        Closing the iterator early keeps what was said so far and stops the generation.

        Raises:
            UsageError: The message alone is longer than the context, or is not Unicode.
            RunFailedError: The program failed.
        """
        self._messages.append(ChatMessage("user", text))
        try:
            ids, dropped = self._fit()
        except UsageError:
            self._messages.pop()
            raise
        kept = self._kept(ids)
        answer = _Answer(fed=len(ids) - kept, cached=kept, dropped=dropped, ids=[])
        self._answers.append(answer)
        self._cached = []  # until we know what the cache holds
        pieces: list[str] = []
        try:
            for piece in self._stream(ids, kept, answer):
                pieces.append(piece)
                yield piece
        finally:
            self._messages.append(ChatMessage("assistant", "".join(pieces)))

    def _stream(self, ids: list[int], kept: int, answer: _Answer) -> Iterator[str]:
        options = self._options
        request = Request(
            token_ids=tuple(ids[kept:]),
            position=kept,
            max_new_tokens=min(options.max_new_tokens, self._room - len(ids) + 1),
            stop_ids=self._stop_ids,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed + len(self._answers) - 1,
        )
        text = self._tokenizer.stream(after=ids[-_CONTEXT_IDS:])
        with closing(self._session.generate(request)) as events:
            for event in events:
                if isinstance(event, End):
                    self._cached = [*ids, *answer.ids][: event.positions]
                    answer.stopped = event.stopped
                    break
                answer.first_ns = answer.first_ns or event.ns
                answer.last_ns = event.ns
                answer.ids.append(event.id)
                if event.id not in self._stop_ids and (piece := text.push(event.id)):
                    yield piece
        if rest := text.finish():
            yield rest

    def _fit(self) -> tuple[list[int], int]:
        """Return the prompt's ids, leaving out the oldest messages until an answer has room."""
        room = self._room - min(self._options.max_new_tokens, self._room // 4)
        dropped = 0
        while len(ids := self._encode()) > room:
            first = int(self._messages[0].role == "system")
            if len(self._messages) - first <= 1:
                if len(ids) <= self._room:
                    break
                raise UsageError(
                    "prompt-too-long",
                    "the message does not fit the context",
                    why=f"{len(ids)} tokens; the package was built for {self._room}",
                    next="shorten it, or build with a larger --max-seq-len",
                )
            count = min(2, len(self._messages) - first - 1)
            del self._messages[first : first + count]
            dropped += count
        return ids, dropped

    def _encode(self) -> list[int]:
        text = self._template.render(self._messages)
        # A template writes its own bos; plain text gets what the tokenizer adds by default.
        return self._tokenizer.encode(text, add_bos=None if self._template.plain else False)

    def _kept(self, ids: list[int]) -> int:
        """Return how many ids the cache already holds: all of it, or nothing."""
        length = len(self._cached)
        return length if length < len(ids) and ids[:length] == self._cached else 0

    def reset(self) -> None:
        """Forget the conversation, keep the system message."""
        system = self._options.system
        self._messages = [] if system is None else [ChatMessage("system", system)]
        self._cached = []

    def totals(self) -> ChatStats:
        """Return the sums over all answers."""
        answers = self._answers
        fed, made = sum(a.fed for a in answers), sum(max(0, len(a.ids) - 1) for a in answers)
        prefill_ns = sum(a.first_ns for a in answers)
        decode_ns = sum(a.last_ns - a.first_ns for a in answers)
        return ChatStats(
            prompt_tokens=fed,
            cached_tokens=sum(a.cached for a in answers),
            new_tokens=sum(len(a.ids) for a in answers),
            ttft_ms=prefill_ns / 1e6 / max(1, len(answers)),
            prefill_tok_per_s=tok_per_s(fed, prefill_ns) if prefill_ns else 0.0,
            decode_tok_per_s=tok_per_s(made, decode_ns) if decode_ns else 0.0,
            stopped=all(a.stopped for a in answers),
            dropped_messages=sum(a.dropped for a in answers),
        )

    def close(self) -> None:
        """End the child process; its log is kept only if something failed in between."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None and self._log is not None:
            self._log.unlink(missing_ok=True)
            self._log.parent.rmdir()
