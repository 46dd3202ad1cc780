"""run_plan.json: what a harness is asked to run, the same for host, phone and simulator.

Four programs obey it (Python host, C++ runner, Kotlin, Swift), so it holds integers, floats,
strings and lists only, and every rule below can be checked with a loop.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mobilepack.contract.base import Contract

TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Teacher(Contract):
    """Feed fixed token ids and record logits after each call (position starts again at 0).

    Attributes:
        name: Unique within the plan; rows of the result carry it.
        token_ids: Ids in order.
        calls: How many ids each successive call of the method feeds, each from 1 to the plan's
            `prefill_chunk`; sums to at most the number of ids. `(33, 1, 1)` is a prefill of 33 and
            two decode steps.
    """

    kind: Literal["teacher"] = "teacher"
    name: str = Field(min_length=1)
    token_ids: tuple[TokenId, ...] = Field(min_length=1)
    calls: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)

    @property
    def positions(self) -> int:
        """Positions of the KV cache that the item needs."""
        return sum(self.calls)


class Generate(Contract):
    """Greedy generation from position 0 until a stop id or `max_new_tokens`; ties: lower id."""

    kind: Literal["generate"] = "generate"
    name: str = Field(min_length=1)
    token_ids: tuple[TokenId, ...] = Field(min_length=1)
    max_new_tokens: int = Field(ge=1)
    stop_ids: tuple[TokenId, ...] = ()

    @property
    def positions(self) -> int:
        """Positions of the KV cache that the item needs (the last new token is never fed)."""
        return len(self.token_ids) + self.max_new_tokens - 1


class Time(Contract):
    """Time a prefill of `n_prompt` and `n_gen` decode steps, `n_depth` tokens already cached.

    The terms are llama-bench's; tokenisation and sampling are outside the clock. The token fed at
    position p is `token_ids[p % len(token_ids)]`. Positions below `n_depth` are fed outside the
    clock before every warm-up and repetition, for a recurrent state cannot be rewound to them.

    Attributes:
        warmups: Untimed rounds before the first repetition.
        cooldown_s: Pause before the first warm-up and between repetitions, seconds.
    """

    kind: Literal["time"] = "time"
    name: str = Field(min_length=1)
    token_ids: tuple[TokenId, ...] = Field(min_length=1)
    n_prompt: int = Field(ge=0)
    n_gen: int = Field(ge=0)
    n_depth: int = Field(ge=0, default=0)
    warmups: int = Field(ge=0, default=1)
    repetitions: int = Field(ge=1, default=5)
    cooldown_s: float = Field(ge=0, default=0.0)

    @property
    def positions(self) -> int:
        """Positions of the KV cache that the item needs."""
        return self.n_depth + self.n_prompt + self.n_gen


Item = Annotated[Teacher | Generate | Time, Field(discriminator="kind")]


class RunPlan(Contract):
    """A list of items run in order by one process after one load.

    Attributes:
        program: POSIX path of the program relative to the package.
        method: Method that is called: `(tokens int64 [1, S], input_pos int64 [1]) -> logits float32
            [1, V]` of the last token.
        max_seq_len: Positions of the KV cache; no item may need more.
        prefill_chunk: Longest S of one call; longer prompts are fed in chunks of it, the rest last.
        sample_ids: Vocabulary ids whose logits each teacher row keeps.
        top_k: How many of the largest logits each teacher row keeps (all, if the vocabulary is
            smaller).
        threads: Threads of the runtime's pool; 0 keeps the harness' own choice.
        weight_cache: sha256 (hex) of the program, if its packed weights may be kept on the device
            and used from there by the next load; empty: each load packs them. Only for programs
            whose manifest says so (`Placement.weight_cache`).
    """

    schema_: Literal["mobilepack/run-plan/1"] = Field("mobilepack/run-plan/1", alias="schema")
    program: str = "model.pte"
    method: str = "forward"
    max_seq_len: int = Field(ge=1)
    prefill_chunk: int = Field(ge=1)
    sample_ids: tuple[TokenId, ...] = ()
    top_k: int = Field(ge=1, default=64)
    threads: int = Field(ge=0, default=0)
    weight_cache: str = Field(pattern="^([0-9a-f]{64})?$", default="")
    items: tuple[Item, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _items_fit(self) -> Self:
        wrong = [text for item in self.items for text in self._wrong(item)]
        names = [item.name for item in self.items]
        wrong += [f"two items are named {n!r}" for n in sorted(set(names)) if names.count(n) > 1]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong(self, item: Teacher | Generate | Time) -> list[str]:
        wrong = []
        if item.positions > self.max_seq_len:
            wrong.append(f"{item.name} needs {item.positions} positions of {self.max_seq_len}")
        if isinstance(item, Teacher) and item.positions > len(item.token_ids):
            wrong.append(f"{item.name} feeds {item.positions} of {len(item.token_ids)} ids")
        if isinstance(item, Teacher) and max(item.calls) > self.prefill_chunk:
            wrong.append(f"{item.name} has a call longer than {self.prefill_chunk}")
        if isinstance(item, Time) and item.n_prompt + item.n_gen == 0:
            wrong.append(f"{item.name} times nothing: n_prompt and n_gen are both 0")
        return wrong


def chunked(length: int, chunk: int) -> tuple[int, ...]:
    """Return the calls that feed `length` tokens: whole chunks first, the rest last."""
    whole, rest = divmod(length, chunk)
    return (chunk,) * whole + ((rest,) if rest else ())
