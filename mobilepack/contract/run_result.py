"""run_result.json: what came back from a device for one run plan."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract


class Row(Contract):
    """Flight-recorder row: the logits after one call of a teacher item.

    Attributes:
        item: Name of the teacher item.
        position: Position (from 0) of the last token fed; the logits predict `position + 1`.
        call_tokens: How many tokens the call fed.
        sampled: Logits at the plan's `sample_ids`, float32.
        top_ids: The plan's `top_k` largest logits' ids, largest first, ties by lower id.
        top_logits: Their logits.
        logsumexp: Natural log of the sum of exp of all logits.
        next_logit: Logit of the item's next token, None after its last.
    """

    item: str
    position: int
    call_tokens: int
    sampled: tuple[float, ...]
    top_ids: tuple[int, ...]
    top_logits: tuple[float, ...]
    logsumexp: float
    next_logit: float | None


class Generated(Contract):
    """Tokens of one greedy generation; `stopped` says whether a stop id ended it."""

    item: str
    token_ids: tuple[int, ...]
    stopped: bool
    ttft_ns: int
    decode_ns: tuple[int, ...]


class Timing(Contract):
    """Raw samples of one timed item, nanoseconds of a monotonic clock, warm-ups excluded.

    Attributes:
        prefill_ns: One sample per repetition: the whole prompt, first logits included.
        decode_ns: Per repetition, one sample per generated token.
    """

    item: str
    prefill_ns: tuple[int, ...]
    decode_ns: tuple[tuple[int, ...], ...]


class Memory(Contract):
    """Resident memory of the running process in bytes."""

    before_load_bytes: int
    after_load_bytes: int
    peak_bytes: int


class Environment(Contract):
    """Where the run happened.

    Attributes:
        kind: `host`, `emulator`, `simulator` or `device`.
        representative: Whether its timings may stand for a user's device.
        runtime: Runtime and library versions by name.
        conditions: Load average, governor, thermal state and the like, as text by name.
    """

    kind: Literal["host", "emulator", "simulator", "device"]
    representative: bool
    name: str
    cpu: str
    threads: int
    runtime: dict[str, str]
    conditions: dict[str, str] = {}


class RunResult(Contract):
    """Everything one run brought back."""

    schema_: Literal["mobilepack/run-result/1"] = Field("mobilepack/run-result/1", alias="schema")
    plan_sha256: str
    load_ns: int
    rows: tuple[Row, ...] = ()
    generated: tuple[Generated, ...] = ()
    timings: tuple[Timing, ...] = ()
    memory: Memory
    environment: Environment
