"""run_plan.json: what a harness is asked to run, the same for host, phone and simulator."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract


class Teacher(Contract):
    """Feed fixed token ids and record logits after each call (position starts again at 0).

    Attributes:
        name: Unique within the plan; rows of the result carry it.
        token_ids: Ids in order.
        calls: How the ids are split over successive calls of the method; sums to at most the number
            of ids. `(33, 1, 1)` is a prefill of 33 and two decode steps.
    """

    kind: Literal["teacher"] = "teacher"
    name: str
    token_ids: tuple[int, ...]
    calls: tuple[int, ...]


class Generate(Contract):
    """Greedy generation from position 0 until a stop id or `max_new_tokens`."""

    kind: Literal["generate"] = "generate"
    name: str
    token_ids: tuple[int, ...]
    max_new_tokens: int = Field(ge=1)
    stop_ids: tuple[int, ...] = ()


class Time(Contract):
    """Time a prefill of `n_prompt` and `n_gen` decode steps, `n_depth` tokens already cached.

    The terms are llama-bench's; tokenisation and sampling are outside the clock. Token ids are the
    plan's `token_ids`, repeated as needed.
    """

    kind: Literal["time"] = "time"
    name: str
    token_ids: tuple[int, ...]
    n_prompt: int = Field(ge=0)
    n_gen: int = Field(ge=0)
    n_depth: int = Field(ge=0, default=0)
    warmups: int = Field(ge=0, default=1)
    repetitions: int = Field(ge=1, default=5)
    cooldown_s: float = Field(ge=0, default=0.0)


class RunPlan(Contract):
    """A list of items run in order by one process after one load.

    Attributes:
        program: Path of the program relative to the plan's package.
        method: Method that is called: `(tokens int64 [1, S], input_pos int64 [1]) -> logits`.
        prefill_chunk: Longest S of one call; longer prompts are fed in chunks.
        sample_ids: Vocabulary ids whose logits each teacher row keeps.
        top_k: How many of the largest logits each teacher row keeps.
        threads: Threads of the runtime's pool; 0 keeps the harness' own choice.
    """

    schema_: Literal["mobilepack/run-plan/1"] = Field("mobilepack/run-plan/1", alias="schema")
    program: str = "model.pte"
    method: str = "forward"
    max_seq_len: int = Field(ge=1)
    prefill_chunk: int = Field(ge=1)
    sample_ids: tuple[int, ...] = ()
    top_k: int = Field(ge=1, default=64)
    threads: int = Field(ge=0, default=0)
    items: tuple[Teacher | Generate | Time, ...]
