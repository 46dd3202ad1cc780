"""eval.json: how well a package does its tasks, measured through its program."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract


class TaskMetric(Contract):
    """One figure of a task.

    Attributes:
        name: As lm-eval calls it (`acc`, `acc_norm`, `exact_match`), or `perplexity`.
        filter: lm-eval's filter behind the figure; `none` for most.
        value: The figure; a share is between 0 and 1.
        stderr: Standard error, None where there is none.
        higher_is_better: Which way is good.
    """

    name: str
    filter: str = "none"
    value: float
    stderr: float | None = None
    higher_is_better: bool = True


class TaskResult(Contract):
    """What became of one task.

    Attributes:
        task: Its name; the kinds of `pocket` are `pocket/add` and so on, and a group of lm-eval is
            followed by its tasks.
        status: `ran`, or `not run` for the reason given.
        reason: Why it was not run, empty otherwise.
        samples: Questions (texts for a perplexity) that were asked.
        version: lm-eval's version of the task, None for our own.
        num_fewshot: Worked examples before each question.
    """

    task: str
    status: Literal["ran", "not run"]
    reason: str = ""
    samples: int = 0
    version: str | None = None
    num_fewshot: int = 0
    metrics: tuple[TaskMetric, ...] = ()


class Evaluation(Contract):
    """Everything `mobilepack eval` measured.

    Attributes:
        asked: Tasks as the user named them.
        limit: Questions per task (per kind for `pocket`) at most, None for all.
        chat_template: Whether lm-eval's questions went through the chat template; `pocket` always
            does where there is one.
        max_seq_len: Positions of the KV cache; longer contexts lose their beginning, as in lm-eval.
        fed_tokens: Tokens that the program was fed, all tasks together.
        wall_s: Seconds of all tasks together, loading excluded.
        versions: Libraries that decide the figures.
    """

    schema_: Literal["mobilepack/eval/1"] = Field("mobilepack/eval/1", alias="schema")
    plan_id: str
    target: str
    model: str
    recipe: str
    device: str
    utc: str
    asked: tuple[str, ...]
    limit: int | None
    chat_template: bool
    max_seq_len: int
    fed_tokens: int
    wall_s: float
    versions: dict[str, str]
    tasks: tuple[TaskResult, ...]
