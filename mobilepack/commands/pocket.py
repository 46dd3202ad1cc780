"""The project's own tasks: small exact questions, and the perplexity of text never trained on.

They need no download and no lm-eval, so they run always; the embedded model was made for them, and
for other models they are a smoke test in English and a perplexity that packages of one model can
be compared by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain

from mobilepack.commands.answering import AnsweringModel, Context
from mobilepack.contract.evaluation import TaskMetric, TaskResult
from mobilepack.errors import UsageError
from mobilepack.models.zoo.corpus import held_out_text
from mobilepack.models.zoo.tasks import MAX_ANSWER_TOKENS, TaskItem, TaskScore, score, tasks

NAME = "pocket"
ITEMS_PER_KIND = 20
TEXTS = 150
_ROW = 512  # tokens that are scored together, as in models/zoo/evaluate.py

OnShare = Callable[[str, float], None]


def run_pocket(
    model: AnsweringModel, limit: int | None, on_share: OnShare
) -> tuple[TaskResult, ...]:
    """Ask every question and score every text; a kind that does not fit the cache is not run.

    Args:
        model: The loaded package.
        limit: Questions per kind, and texts, at most; None for all.
        on_share: Told what is done, and the share of it.
    """
    items = tasks(ITEMS_PER_KIND if limit is None else min(limit, ITEMS_PER_KIND))
    asked: list[TaskItem] = []
    answers: list[str] = []
    lost: dict[str, str] = {}
    for number, item in enumerate(items):
        on_share(f"{NAME}: {item.kind}", number / len(items))
        try:
            prompt = model.prompt(item.messages[-1].content)
        except UsageError as err:
            lost[item.kind] = f"{err.what}: {err.why}"
            continue
        asked.append(item)
        answers.append(model.answer(prompt, MAX_ANSWER_TOKENS)[0])
    texts = TEXTS if limit is None else min(limit, TEXTS)
    unasked = (
        TaskResult(task=f"{NAME}/{kind}", status="not run", reason=why)
        for kind, why in lost.items()
    )
    return (*_questions(score(asked, answers)), *unasked, held_out(model, texts, on_share))


def _questions(found: TaskScore) -> Iterator[TaskResult]:
    if found.asked:
        yield _result(NAME, found.right, found.asked)
    for kind, (right, asked) in found.by_kind.items():
        yield _result(f"{NAME}/{kind}", right, asked)


def _result(name: str, right: int, asked: int) -> TaskResult:
    share = right / asked
    # of the mean of `asked` zeros and ones, with n - 1 as lm-eval's mean_stderr
    stderr = math.sqrt(share * (1 - share) / (asked - 1)) if asked > 1 else None
    metric = TaskMetric(name="exact_match", value=share, stderr=stderr)
    return TaskResult(task=name, status="ran", samples=asked, metrics=(metric,))


def held_out(model: AnsweringModel, texts: int, on_share: OnShare) -> TaskResult:
    """Return exp of the mean cross entropy over every token of each row but its first.

    The texts, each from its beginning to its end token, are laid end to end in rows of 512 tokens,
    or of what the cache holds.
    """
    rows = held_out_rows(model, texts)
    name = f"{NAME}/held-out"
    total, count = 0.0, 0
    for number, row in enumerate(rows):
        on_share(name, number / len(rows))
        (scored,) = model.scores(row[:1], (row[1:],))
        total -= math.fsum(scored.logprobs)
        count += len(scored.logprobs)
    perplexity = TaskMetric(name="perplexity", value=math.exp(total / count))
    metrics = (perplexity.model_copy(update={"higher_is_better": False}),)
    return TaskResult(task=name, status="ran", samples=len(rows), metrics=metrics)


def held_out_rows(model: AnsweringModel, texts: int) -> list[Context]:
    """Return the held-out texts' token ids in whole rows; a rest that fills none is left out.

    Raises:
        UsageError: The tokenizer makes no tokens of English.
    """
    length = min(_ROW, model.room)
    parts = (_document(model, text) for text in held_out_text(texts))
    ids = tuple(chain.from_iterable(parts))
    if not ids:
        raise UsageError(
            "no-tokens",
            "cannot measure the perplexity of this package",
            why="its tokenizer makes no tokens of English text",
            next="check that the tokenizer belongs to the model",
        )
    length = min(length, len(ids))
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]


def _document(model: AnsweringModel, text: str) -> list[int]:
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text, add_bos=None if tokenizer.bos_id is None else True)
    return [*ids, *tokenizer.eos_ids[:1]]
