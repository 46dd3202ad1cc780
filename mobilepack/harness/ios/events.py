"""What the app says while it runs: `MOBILEPACK {json}` on its output, the same in a file.

Events carry a number from 0, for a transport can lose the output or bring it late.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mobilepack.contract.base import Contract

MARK = "MOBILEPACK "


class _Numbered(Contract):
    n: int = Field(ge=0)


class Loaded(_Numbered):
    """The program is ready."""

    event: Literal["loaded"]
    load_ns: int
    threads: int


class ItemBegins(_Numbered):
    """Item `done` (from 0) of `total` begins; `done == total` after the last."""

    event: Literal["item"]
    item: str
    done: int
    total: int


class MemoryNote(_Numbered):
    """What the app uses and what the system still grants it (`os_proc_available_memory`)."""

    event: Literal["memory"]
    footprint_bytes: int
    available_bytes: int


class Failed(_Numbered):
    """The app could not carry out the plan."""

    event: Literal["failed"]
    why: str


class Written(_Numbered):
    """The result of a run is in its file, whole."""

    event: Literal["written"]
    run_id: str


Event = Annotated[Loaded | ItemBegins | MemoryNote | Failed | Written, Field(discriminator="event")]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


def parse(line: str) -> Event | None:
    """Return the event of a line's JSON; None for a line that was cut off."""
    try:
        return _EVENTS.validate_json(line)
    except ValidationError:
        return None
