"""What a lowering child is asked, and what it answers; both are pickled between our processes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from mobilepack.contract.manifest import Lowering, Method, StaticForm
from mobilepack.contract.reference import GreedyReference, Rows, Variant
from mobilepack.models.operators_static import Heads
from mobilepack.models.spec import DecoderSpec

Precision = Literal["fp16", "16a8w", "16a4w"]
MetadataValue = int | bool | tuple[int, ...]

MASK_HALF, MASK_QUANTISED = -4e4, -100.0
"""Added to scores that must not count: near the least number of half precision; and so that 16 bits
still resolve the scores, exp(-100) being 0 for any that count."""


def mask_value(precision: Precision) -> float:
    """Return what is added to scores that must not count."""
    return MASK_HALF if precision == "fp16" else MASK_QUANTISED


class _Pickled:
    __slots__ = ()

    def save(self, path: Path) -> None:
        """Write it."""
        path.write_bytes(pickle.dumps(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what the other process wrote into a folder of ours."""
        found = pickle.loads(path.read_bytes())  # noqa: S301  our own child's
        if not isinstance(found, cls):
            raise TypeError(f"{path} holds a {type(found).__name__}")
        return found


@dataclass(frozen=True, slots=True)
class Taps:
    """A program that is made again, to be looked into.

    Attributes:
        names: Of the tensors that become outputs as well.
        ranges: As the build calibrated them; empty for half precision.
    """

    names: tuple[str, ...]
    ranges: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class LowerRequest(_Pickled):
    """A model to be lowered.

    Attributes:
        weights: A safetensors file with every parameter in float32; equal ones are there once and
            named in `shared`.
        shared: Names of parameters that are another's tensor.
        max_seq_len: Positions of a sequence; the cache holds one less.
        rows: Token ids of the calibration text.
        context_limit_bytes: Constants of one context at most.
        phone_out: Where the program goes whose methods share their weights; None where the SoC
            cannot load such a one.
        block: Inputs that share a scale in 4-bit matrices, 0 for one scale per output.
        passages: Sequences whose logits the fake-quantised model is asked for.
        out: Where the program goes.
        taps: Makes the emulator's program only, with more outputs; nothing is calibrated or
            computed in eager torch.
    """

    spec: DecoderSpec
    weights: Path
    shared: dict[str, str]
    precision: Precision
    max_seq_len: int
    prefill_tokens: int
    soc_model: str
    heads: Heads
    rows: tuple[tuple[int, ...], ...]
    passages: tuple[tuple[str, tuple[int, ...]], ...]
    metadata: dict[str, MetadataValue]
    out: Path
    lowering: Lowering = "fast"
    context_limit_bytes: int = 4 * 10**9
    phone_out: Path | None = None
    block: int = 0
    taps: Taps | None = None


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """A compiled context.

    Attributes:
        program: Name of the file it is in.
        methods: Whose graphs it holds, compiled in this order.
        shard: Which part of the model, from 0 on.
        operators: Of each graph.
    """

    program: str
    methods: tuple[str, ...]
    shard: int
    bytes: int
    sha256: str
    operators: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LowerResult(_Pickled):
    """A lowered model.

    Attributes:
        delegates: Of all methods.
        operators: Inside delegates, all methods.
        fallback: Kernel calls outside, by name.
        ranges: Least and largest value of each observed activation, by the observed node's name.
        contexts: In the order in which they were compiled.
        graphs_sha256: Of each method's graph with its encodings.
        weights_sha256: Of all constants as they were compiled.
        rows: The fake-quantised model's flight-recorder rows: `quantised` and `floor`.
    """

    form: StaticForm
    methods: tuple[Method, ...]
    delegates: int
    operators: int
    fallback: dict[str, int]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: dict[Variant, Rows] = field(default_factory=dict)
    greedy: tuple[GreedyReference, ...] = ()
    contexts: tuple[ContextFacts, ...] = ()
    graphs_sha256: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = ""
