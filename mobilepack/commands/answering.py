"""A package as a model that answers: likelihoods and greedy text, through its program."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from mobilepack.contract.package import Package
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import UsageError
from mobilepack.harness.base import Limits
from mobilepack.harness.host import HostSession
from mobilepack.harness.talk import End, Request, Score, Scored, Scores, Token
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer

Context = tuple[int, ...]


class Session(Protocol):
    """A loaded program; see `HostSession`."""

    def generate(self, request: Request) -> Generator[Token | End, None, None]:
        """Yield the new tokens, then the end."""

    def score(self, asked: Score) -> Scores:
        """Return how likely the continuations of a context are."""


class AnsweringModel:
    """A loaded package with its tokenizer and chat template.

    What two contexts in a row share at their beginning stays in the KV cache and is fed once, so
    questions in sorted order pay for their few-shot examples once.

    Attributes:
        room: Positions of the KV cache.
        stop_ids: Every id that ends an answer.
        fed_tokens: Tokens fed to the program so far.
    """

    def __init__(self, package: Package, session: Session, *, rewinds: bool = True) -> None:
        """Wrap a session that has loaded the package's program.

        Args:
            package: The opened package.
            session: Its program.
            rewinds: Whether the program can go on from an earlier position; see `can_rewind`.

        Raises:
            MissingError, UsageError: The tokenizer or chat template cannot be read.
        """
        self._session = session
        self._rewinds = rewinds
        self.tokenizer = Tokenizer.open(package.root)
        self.template = ChatTemplate.open(package.root)
        self.room = package.manifest.plan.max_seq_len
        eos = (*self.tokenizer.eos_ids, *package.manifest.tokenizer.eos_ids)
        self.stop_ids = tuple(dict.fromkeys(eos))
        self.fed_tokens = 0
        self._cached: Context = ()

    def prompt(self, text: str) -> Context:
        """Return the ids of a user's question, ready for the answer.

        Raises:
            UsageError: It does not fit the cache.
        """
        rendered = self.template.render([ChatMessage("user", text)])
        plain = self.template.plain
        ids = tuple(self.tokenizer.encode(rendered, add_bos=None if plain else False))
        if len(ids) >= self.room:
            raise UsageError(
                "question-too-long",
                f"a question of {len(ids)} tokens does not fit the package",
                why=f"it was built for {self.room}",
                next="build with a larger --max-seq-len",
            )
        return ids

    def scores(
        self, context: Context, continuations: Sequence[Sequence[int]]
    ) -> tuple[Scored, ...]:
        """Return how likely continuations are; context and each of them fit the cache together."""
        wanted = tuple(tuple(ids) for ids in continuations)
        if self._rewinds:
            return self._scores(context, wanted)
        return tuple(self._scores(context, (ids,))[0] for ids in wanted)

    def _scores(self, context: Context, continuations: tuple[Context, ...]) -> tuple[Scored, ...]:
        kept = self._kept(context)
        asked = Score(token_ids=context[kept:], position=kept, continuations=continuations)
        self._cached = ()
        answer = self._session.score(asked)
        self._cached = context
        self.fed_tokens += answer.fed_tokens
        return answer.scored

    def answer(
        self, context: Context, max_new_tokens: int, until: Sequence[str] = ()
    ) -> tuple[str, tuple[int, ...]]:
        """Generate greedily until a stop id, a stop text or the limit.

        Returns:
            The text, stop texts still in it, and the ids without the stop id.
        """
        kept = self._kept(context)
        request = Request(
            token_ids=context[kept:],
            position=kept,
            max_new_tokens=min(max_new_tokens, self.room - len(context) + 1),
            stop_ids=self.stop_ids,
            temperature=0.0,
            top_p=1.0,
            seed=0,
        )
        self._cached = ()
        ids: list[int] = []
        text = ""
        with closing(self._session.generate(request)) as events:
            for event in events:
                if isinstance(event, End) or event.id in self.stop_ids:
                    continue
                ids.append(event.id)
                if until:
                    text = self.tokenizer.decode(ids, skip_special=True)
                    if any(stop and stop in text for stop in until):
                        break
        self._cached = context
        self.fed_tokens += len(request.token_ids) + len(ids)
        return self.tokenizer.decode(ids, skip_special=True), tuple(ids)

    def _kept(self, context: Context) -> int:
        """Return how many tokens need not be fed again; one at least must be, for its logits."""
        count = 0
        if not self._rewinds:
            return count
        for one, other in zip(self._cached, context[:-1], strict=False):
            if one != other:
                break
            count += 1
        return count


@contextmanager
def answering(
    package: Package, *, threads: int, timeout_s: float, log: Path | None = None
) -> Iterator[AnsweringModel]:
    """Load a package's program on this machine for the length of a `with`.

    Args:
        package: An opened package.
        threads: 0 for one per physical core.
        timeout_s: Limit of the load and of each answer.
        log: What the runtime prints; a temporary file by default.

    Raises:
        RunFailedError: The program cannot be loaded.
    """
    build = package.manifest.plan
    plan = RunPlan(
        program=package.program.relative_to(package.root).as_posix(),
        max_seq_len=build.max_seq_len,
        prefill_chunk=build.prefill_chunk,
        threads=threads,
        items=(Teacher(name="unused", token_ids=(0,), calls=(1,)),),
    )
    with tempfile.TemporaryDirectory(prefix="mobilepack-eval-") as folder:
        at = log or Path(folder) / "log.txt"
        limits = Limits.within(timeout_s)
        with HostSession(package.root, plan, log=at, limits=limits) as session:
            yield AnsweringModel(package, session, rewinds=can_rewind(session))


def can_rewind(session: Session) -> bool:
    """Try whether a program can go on from an earlier position.

    A KV cache is addressed by position, so what lies behind is overwritten or masked; the state of
    a recurrent mixer is not, and starts afresh at position 0 only. The same calls with and without
    an earlier continuation give the same bits, or the program cannot.
    """

    def second(*others: Context) -> Scored:
        asked = Score(token_ids=(1,), position=0, continuations=(*others, (3, 1)))
        return session.score(asked).scored[-1]

    return second() == second((2, 1))


def by_context(
    pairs: Mapping[int, tuple[Context, Context]],
) -> Iterator[tuple[Context, dict[int, Context]]]:
    """Group numbered (context, continuation) pairs by context, contexts in sorted order."""
    groups: dict[Context, dict[int, Context]] = {}
    for number, (context, continuation) in pairs.items():
        groups.setdefault(context, {})[number] = continuation
    yield from sorted(groups.items())
