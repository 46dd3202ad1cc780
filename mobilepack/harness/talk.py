"""What the host's child process and its parent say to each other, one JSON document per line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mobilepack.contract.base import Contract, problems


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


Event = Annotated[Loaded | ItemBegins | Failed | Token | End, Field(discriminator="event")]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class Request(Contract):
    """Feed tokens from a position on, then generate.

    Attributes:
        position: How many positions of the KV cache are kept.
        temperature: 0 is greedy.
        top_p: Nucleus, 1 keeps every token.
    """

    token_ids: tuple[int, ...] = Field(min_length=1)
    position: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    stop_ids: tuple[int, ...]
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int


CANCEL = "cancel"


def parse_event(line: str) -> Event:
    """Return the event of a line.

    Raises:
        ValueError: The line is none.
    """
    try:
        return _EVENTS.validate_json(line)
    except ValidationError as err:
        raise ValueError(f"{line[:120]!r}: {problems(err)}") from err
