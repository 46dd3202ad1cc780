"""run_result.json: what came back from a device for one run plan.

JSON has no NaN and no infinity: a call that produced any is a row with `non_finite` > 0 and no
other numbers. Logits are float32, written with at least 9 significant digits.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract
from mobilepack.contract.placement import Placement


class Row(Contract):
    """Flight-recorder row: the logits after one call of a teacher item.

    Attributes:
        item: Name of the teacher item.
        position: Position (from 0) of the last token fed; the logits predict `position + 1`.
        call_tokens: How many tokens the call fed.
        non_finite: How many of all logits are NaN or infinite; when not 0, `sampled` and the tops
            are empty and the rest 0 or None.
        sampled: Logits at the plan's `sample_ids`, float32.
        top_ids: Ids of the plan's `top_k` largest logits, largest first, ties by lower id.
        top_logits: Their logits.
        logsumexp: Natural log of the sum of exp of all logits.
        next_logit: Logit of the item's next token, None after its last.
    """

    item: str
    position: int = Field(ge=0)
    call_tokens: int = Field(ge=1)
    non_finite: int = Field(ge=0, default=0)
    sampled: tuple[float, ...]
    top_ids: tuple[int, ...]
    top_logits: tuple[float, ...]
    logsumexp: float
    next_logit: float | None


class Generated(Contract):
    """Tokens of one greedy generation.

    Attributes:
        token_ids: New tokens, a stop id included if one ended it.
        stopped: Whether a stop id ended it.
        ttft_ns: From the first call to the first new token.
        decode_ns: Time of each following token, one fewer than `token_ids`.
    """

    item: str
    token_ids: tuple[int, ...]
    stopped: bool
    ttft_ns: int
    decode_ns: tuple[int, ...]


class Timing(Contract):
    """Raw samples of one timed item, nanoseconds of a monotonic clock, warm-ups excluded.

    Attributes:
        prefill_ns: One sample per repetition: the whole prompt, its last logits included; empty
            when the item has no prompt.
        decode_ns: Per repetition, one sample per generated token.
        prefill_instructions: Likewise, instructions of all threads instead of time; empty where
            nobody counts them. Exact, and the same again, on a virtual phone with one thread.
        decode_instructions: Likewise.
    """

    item: str
    prefill_ns: tuple[int, ...]
    decode_ns: tuple[tuple[int, ...], ...]
    prefill_instructions: tuple[int, ...] = ()
    decode_instructions: tuple[tuple[int, ...], ...] = ()


class Memory(Contract):
    """Resident memory of the running process in bytes.

    Attributes:
        before_load_bytes: With the runtime's libraries loaded, before the program.
        after_load_bytes: With the program loaded, before the first call.
        peak_bytes: High-water mark since before the load.
    """

    before_load_bytes: int = Field(ge=0)
    after_load_bytes: int = Field(ge=0)
    peak_bytes: int = Field(ge=0)


class Environment(Contract):
    """Where the run happened.

    Attributes:
        kind: `host`, `emulator`, `simulator` or `device`.
        representative: Whether its timings may stand for a user's device.
        threads: Threads the runtime's pool really had.
        runtime: Runtime and library versions by name.
        conditions: Load average, governor, thermal state and the like, as text by name; what
            changes is given twice, `<name>_before` and `<name>_after`.
    """

    kind: Literal["host", "emulator", "simulator", "device"]
    representative: bool
    name: str
    cpu: str
    threads: int = Field(ge=1)
    runtime: dict[str, str]
    conditions: dict[str, str] = Field(default_factory=dict)


class RunResult(Contract):
    """Everything one run brought back.

    Attributes:
        plan_sha256: sha256 (hex) of the bytes of the run_plan.json that was obeyed.
        load_ns: Opening the program and preparing the method, before the first call.
        cached_load_ns: The same once more in the same process, with whatever the system kept of
            the first (Core ML: the program specialised for the device); None if not taken.
        placement: Where a device runs each operator, None where nothing tells.
    """

    schema_: Literal["mobilepack/run-result/1"] = Field("mobilepack/run-result/1", alias="schema")
    plan_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    load_ns: int = Field(ge=0)
    cached_load_ns: int | None = Field(ge=0, default=None)
    rows: tuple[Row, ...] = ()
    generated: tuple[Generated, ...] = ()
    timings: tuple[Timing, ...] = ()
    memory: Memory
    environment: Environment
    placement: Placement | None = None

    def to_json(self) -> str:
        """Return it on one line: it can hold a million numbers, which nobody reads by eye."""
        return self.model_dump_json(by_alias=True) + "\n"
