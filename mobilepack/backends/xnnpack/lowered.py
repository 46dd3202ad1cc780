"""What a lowering gives: the program without its weights, and the steps it was made in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mobilepack.backends.xnnpack.attention import Call
from mobilepack.backends.xnnpack.layout import FileMap
from mobilepack.backends.xnnpack.rules_recurrent import Window
from mobilepack.backends.xnnpack.storage import Tally


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program without its weights.

    Attributes:
        head: The bytes before the first segment (flatbuffer and extended header).
        layout: What fills the segments.
        tally: Parameters and bytes per storage format.
        delegates: Number of XNNPACK delegates.
        operators: Operators inside the delegates.
        kernel_calls: Kernel calls outside, by name, in one call with a single token.
        state_bytes: KV cache.
        activation_bytes: Planned intermediate tensors outside the delegates.
        workspace_bytes: Intermediate values inside the most demanding delegate.
        linears: Names of the weights of the linear maps, in the order of the delegates.
    """

    head: bytes
    layout: FileMap
    tally: Tally
    delegates: int
    operators: int
    kernel_calls: Mapping[str, int]
    state_bytes: int
    activation_bytes: int
    workspace_bytes: int
    linears: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DelegateStep:
    delegate: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LastTokenStep:
    source: int
    out: int


@dataclass(frozen=True, slots=True)
class CarryStep:
    window: Window
    state: int
    whole: int


@dataclass(frozen=True, slots=True)
class PlayedStep:
    """A step of a mixture or a recurrence; `play` writes it into the program's current branch.

    Attributes:
        play: Told whether the branch is that of many tokens.
    """

    play: Callable[[bool], None]


Step = DelegateStep | LastTokenStep | CarryStep | PlayedStep | Call


@dataclass(frozen=True, slots=True)
class Place:
    """Instructions of a step in one branch of the program, from `start` to `end` (exclusive)."""

    step: Step
    many_tokens: bool
    start: int
    end: int
