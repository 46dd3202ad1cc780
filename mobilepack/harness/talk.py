"""What the process that runs a plan and its parent say to each other, one JSON document a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mobilepack.contract.base import Contract, problems
from mobilepack.contract.run_result import Generated, Row, Timing


class Loaded(Contract):
    """The program is ready."""

    event: Literal["loaded"] = "loaded"
    load_ns: int
    threads: int


class ItemBegins(Contract):
    """Item `done` (from 0) of `total` begins; `done == total` after the last."""

    event: Literal["item"] = "item"
    item: str
    done: int
    total: int


class ItemFinished(Contract):
    """What one item brought, as soon as it has: it is not lost if the device is.

    Attributes:
        peak_bytes: High-water mark of resident memory until now.
    """

    event: Literal["finished"] = "finished"
    item: str
    rows: tuple[Row, ...] = ()
    generated: tuple[Generated, ...] = ()
    timings: tuple[Timing, ...] = ()
    peak_bytes: int = Field(ge=0)


class Failed(Contract):
    """The runtime refused something; the child ends."""

    event: Literal["failed"] = "failed"
    why: str


class Token(Contract):
    """One new token, `ns` after the request came."""

    event: Literal["token"] = "token"
    id: int
    ns: int


class End(Contract):
    """A generation ended.

    Attributes:
        positions: Positions of the KV cache in use; a last new token is not among them.
        cancelled: The parent asked for the end.
    """

    event: Literal["end"] = "end"
    positions: int
    new_tokens: int
    stopped: bool
    cancelled: bool


class Scored(Contract):
    """How likely one continuation is.

    Attributes:
        logprobs: Natural logarithm of each token's probability, given all before it.
        greedy: Every token is the most probable one (the lowest id of several).
    """

    logprobs: tuple[float, ...]
    greedy: bool


class Scores(Contract):
    """The answer to `Score`, in the order of its continuations."""

    event: Literal["scores"] = "scores"
    scored: tuple[Scored, ...]
    fed_tokens: int


Event = Annotated[
    Loaded | ItemBegins | ItemFinished | Failed | Token | End | Scores,
    Field(discriminator="event"),
]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class Score(Contract):
    """Feed a context from a position on, then say how likely each continuation of it is.

    The context is fed once; each continuation begins again where it ends, and what continuations
    share at their beginning is fed once too. Afterwards the cache holds the context, and nothing
    that may be relied on behind it.

    Attributes:
        token_ids: The part of the context that the cache does not hold yet.
        position: How many positions of the KV cache are kept.
        continuations: Token ids, none empty.
    """

    kind: Literal["score"] = "score"
    token_ids: tuple[int, ...] = Field(min_length=1)
    position: int = Field(ge=0)
    continuations: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...]


class Request(Contract):
    """Feed tokens from a position on, then generate.

    Attributes:
        position: How many positions of the KV cache are kept.
        temperature: 0 is greedy.
        top_p: Nucleus, 1 keeps every token.
    """

    kind: Literal["generate"] = "generate"
    token_ids: tuple[int, ...] = Field(min_length=1)
    position: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    stop_ids: tuple[int, ...]
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int


CANCEL = "cancel"

Asked = Annotated[Request | Score, Field(discriminator="kind")]
_ASKED: TypeAdapter[Asked] = TypeAdapter(Asked)


def parse_asked(line: str) -> Asked:
    """Return what the parent asks for.

    Raises:
        ValueError: The line asks for nothing known.
    """
    try:
        return _ASKED.validate_json(line)
    except ValidationError as err:
        raise ValueError(f"{line[:120]!r}: {problems(err)}") from err


def parse_event(line: str) -> Event:
    """Return the event of a line.

    Raises:
        ValueError: The line is none.
    """
    try:
        return _EVENTS.validate_json(line)
    except ValidationError as err:
        raise ValueError(f"{line[:120]!r}: {problems(err)}") from err
