"""Measure a checkpoint: held-out perplexity, the task set, and what 4-bit weights cost.

``python -m mobilepack.models.zoo.evaluate [FOLDER]`` prints one JSON document. It runs
``transformers`` in fp32, the reference, and so needs the development environment.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import Chat, calibration_text, held_out_text
from mobilepack.models.zoo.corpus.grammar import Message
from mobilepack.models.zoo.tasks import MAX_ANSWER_TOKENS, TaskItem, TaskScore, score, tasks
from mobilepack.models.zoo.train.data import ASSISTANT, END, encode

HELD_OUT_TEXTS: Final = 150
_CHATS: Final = ("Hello", "Who are you?", "What is 7 + 5?", "Tell me a story")


@dataclass(frozen=True, slots=True)
class Quality:
    """Held-out perplexity per token, and the score on the task set."""

    perplexity: float
    tasks: TaskScore


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one checkpoint: in fp32, with 4-bit weights, and what to hold them against."""

    reference: Quality
    rounded: Quality
    unigram_perplexity: float
    held_out_tokens: int
    replies: Mapping[str, str]


def held_out_rows(tokenizer: Tokenizer, length: int = 512, texts: int = HELD_OUT_TEXTS) -> Tensor:
    """Return the held-out texts, each from ``<|bos|>`` to ``<|end|>``, in rows [rows, length]."""
    ids = [token for text in held_out_text(texts) for token in encode(tokenizer, text)[0]]
    rows = len(ids) // length
    return torch.tensor(ids[: rows * length]).view(rows, length)


@torch.no_grad()
def perplexity(model: nn.Module, rows: Tensor) -> float:
    """Return exp of the mean cross entropy over every token of each row but its first."""
    total = 0.0
    for row in rows:
        logits = model(row[None]).logits[0, :-1].float()
        total += float(functional.cross_entropy(logits, row[1:], reduction="sum"))
    return math.exp(total / rows[:, 1:].numel())


def unigram_perplexity(tokenizer: Tokenizer, rows: Tensor) -> float:
    """Return the perplexity of token frequencies (add-one) counted on 2,000 training texts."""
    counts: Counter[int] = Counter()
    for text in calibration_text(2000):
        counts.update(encode(tokenizer, text)[0][1:])
    size = counts.total() + tokenizer.get_vocab_size()
    targets = rows[:, 1:].flatten().tolist()
    return math.exp(-sum(math.log((counts[t] + 1) / size) for t in targets) / len(targets))


def prompt_ids(tokenizer: Tokenizer, chat: Chat) -> list[int]:
    """Return the chat's token ids up to where the assistant begins, as the chat template has it."""
    return [*encode(tokenizer, chat)[0], ASSISTANT]


@torch.no_grad()
def reply(model: nn.Module, tokenizer: Tokenizer, chat: Chat, tokens: int) -> str:
    """Return the greedy reply, at most ``tokens`` tokens long."""
    given = torch.tensor([prompt_ids(tokenizer, chat)])
    cache = None
    said: list[int] = []
    while len(said) < tokens:
        out = model(given, past_key_values=cache, use_cache=True)
        cache, chosen = out.past_key_values, int(out.logits[0, -1].argmax())
        if chosen == END:
            break
        said.append(chosen)
        given = torch.tensor([[chosen]])
    return tokenizer.decode(said)


def score_tasks(model: nn.Module, tokenizer: Tokenizer, items: Sequence[TaskItem]) -> TaskScore:
    """Answer every item greedily and score the answers."""
    answers = [reply(model, tokenizer, item.messages, MAX_ANSWER_TOKENS) for item in items]
    return score(items, answers)


@torch.no_grad()
def round_weights(model: nn.Module, group_size: int = 32) -> None:
    """Round each linear layer's weights to 4 bits in place: symmetric, to nearest, by group.

    The tied embedding is rounded too, through the output layer.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            groups = module.weight.view(-1, group_size)
            scale = groups.abs().amax(1, keepdim=True).clamp_min(1e-8) / 7
            groups.copy_((groups / scale).round().clamp(-8, 7) * scale)


def load(folder: Path) -> tuple[nn.Module, Tokenizer]:
    """Load the checkpoint in fp32 with transformers, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def _quality(model: nn.Module, tokenizer: Tokenizer, rows: Tensor) -> Quality:
    return Quality(perplexity(model, rows), score_tasks(model, tokenizer, tasks()))


def measure(folder: Path) -> Measured:
    """Return the figures that the model card quotes."""
    model, tokenizer = load(folder)
    rows = held_out_rows(tokenizer)
    replies = {q: reply(model, tokenizer, (Message("user", q),), 200) for q in _CHATS}
    reference = _quality(model, tokenizer, rows)
    round_weights(model)
    rounded = _quality(model, tokenizer, rows)
    unigram = unigram_perplexity(tokenizer, rows)
    return Measured(reference, rounded, unigram, rows.numel(), replies)


def main() -> None:
    """Print the figures of the folder named on the command line, or of the embedded model."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else embedded_path()
    found = asdict(measure(folder))
    print(json.dumps(found, indent=1, ensure_ascii=False))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
