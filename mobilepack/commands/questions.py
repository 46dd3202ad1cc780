"""A few questions with one right answer each, asked of every level of the ladder in its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilepack.contract.package import Package
from mobilepack.contract.parity import Share
from mobilepack.contract.run_plan import Generate
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MobilepackError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo.tasks import MAX_ANSWER_TOKENS, TaskItem, score, tasks


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked, and how answers are read.

    Attributes:
        items: Of the run plan, in the order of `asked`.
    """

    items: tuple[Generate, ...] = ()
    asked: tuple[TaskItem, ...] = ()
    tokenizer: Tokenizer | None = None

    def score(self, result: RunResult) -> Share | None:
        """Return how many answers of a run are right, None if it was not asked."""
        said = {one.item: one.token_ids for one in result.generated}
        if self.tokenizer is None or any(item.name not in said for item in self.items):
            return None
        answers = [self._text(said[item.name]) for item in self.items]
        found = score(self.asked, answers)
        return Share(count=found.right, of=found.asked) if found.asked else None

    def _text(self, ids: Sequence[int]) -> str:
        assert self.tokenizer is not None  # noqa: S101 - `score` has looked
        stops = set(self.items[0].stop_ids)
        return self.tokenizer.decode([i for i in ids if i not in stops], skip_special=True)


def questions(package: Package, count: int) -> Questions:
    """Return at most `count` questions that fit the cache, spread over the kinds of `pocket`."""
    if count < 1:
        return Questions()
    try:
        tokenizer, template = Tokenizer.open(package.root), ChatTemplate.open(package.root)
    except MobilepackError:
        return Questions()  # a package without them cannot be asked
    stops = tuple(dict.fromkeys((*tokenizer.eos_ids, *package.manifest.tokenizer.eos_ids)))
    room = package.manifest.plan.max_seq_len
    asked: list[TaskItem] = []
    items: list[Generate] = []
    for task in _spread(count):
        text = template.render([ChatMessage("user", task.messages[-1].content)])
        ids = tuple(tokenizer.encode(text, add_bos=None if template.plain else False))
        if not ids or len(ids) + MAX_ANSWER_TOKENS > room:
            continue
        asked.append(task)
        items.append(
            Generate(
                name=f"question {len(items) + 1}: {task.kind}",
                token_ids=ids,
                max_new_tokens=MAX_ANSWER_TOKENS,
                stop_ids=stops,
            )
        )
    return Questions(tuple(items), tuple(asked), tokenizer)


def _spread(count: int) -> list[TaskItem]:
    """Return questions of as many kinds as there are."""
    per_kind: dict[str, list[TaskItem]] = {}
    for item in tasks(count):
        per_kind.setdefault(item.kind, []).append(item)
    rounds = (kind[number] for number in range(count) for kind in per_kind.values()
              if number < len(kind))  # fmt: skip
    return [item for _, item in zip(range(count), rounds, strict=False)]
