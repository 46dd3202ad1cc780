"""EleutherAI's lm-eval over a packaged program: its tasks, prompts and metrics, our likelihoods.

Importing this module imports lm-eval (`mobilepack[eval]`). What a model must do for lm-eval is
written after lm-eval 0.4.11's own `HFLM` (models/huggingface.py): how texts are encoded, where a
context is cut, what an answer ends with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mobilepack.commands.answering import AnsweringModel, Context, by_context
from mobilepack.errors import UsageError
from mobilepack.models.chat import ChatMessage

_MAX_GEN_TOKENS = 256  # HFLM.max_gen_toks
OnShare = Callable[[str, float], None]


class PackagedLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """A package as lm-eval sees it."""

    def __init__(self, model: AnsweringModel, on_share: OnShare) -> None:
        """Wrap a loaded package.

        Args:
            model: The package.
            on_share: Told what is done, and the share of it.
        """
        super().__init__()
        self._model = model
        self._on_share = on_share

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text; the tokenizer's own, then the model's."""
        return self._model.stop_ids[0] if self._model.stop_ids else self.prefix_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: bos, else eos (HFLM)."""
        bos = self._model.tokenizer.bos_id
        if bos is not None:
            return bos
        if not self._model.stop_ids:
            raise UsageError(
                "no-prefix-token",
                "cannot score a text without a context",
                why="the package's tokenizer names neither a bos nor an eos token",
                next="name one of them in tokenizer_config.json and build again",
            )
        return self._model.stop_ids[0]

    @property
    def max_length(self) -> int:
        """Positions of the KV cache."""
        return self._model.room

    @property
    def max_gen_toks(self) -> int:
        """Tokens of an answer whose task names no limit."""
        return _MAX_GEN_TOKENS

    @property
    def tokenizer_name(self) -> str:
        """A name for lm-eval's request cache, which is not used."""
        return "mobilepack"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: object
    ) -> list[int]:
        """Return a text's ids: what transformers adds by default, but never bos twice."""
        tokenizer = self._model.tokenizer
        prefix = tokenizer.decode([self.prefix_token_id])
        bare = add_special_tokens is False or (prefix != "" and string.startswith(prefix))
        return tokenizer.encode(string, add_bos=False if bare else None)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a conversation as the package's template has it."""
        if not add_generation_prompt:
            raise UsageError(
                "answer-prefix",
                "cannot begin the assistant's answer for it",
                why="the task has a gen_prefix, and chat templates here end where answers begin",
                next="leave --chat-template out for this task",
            )
        turns = [ChatMessage(turn["role"], turn["content"]) for turn in chat_history]
        return self._model.template.render(turns)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[object, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: object,
    ) -> list[tuple[float, bool]]:
        """Score (_, context, continuation) triples; all continuations of a context together."""
        pairs = {
            number: self._cut(context, continuation)
            for number, (_, context, continuation) in enumerate(requests)
        }
        found: dict[int, tuple[float, bool]] = {}
        for context, numbered in by_context(pairs):
            scored = self._model.scores(context, tuple(numbered.values()))
            for number, row in zip(numbered, scored, strict=True):
                found[number] = (math.fsum(row.logprobs), row.greedy)
            self._on_share("log-likelihoods", len(found) / len(pairs))
        return [found[number] for number in range(len(pairs))]

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[Context, Context]:
        """Drop the beginning of what is longer than the cache; the last token is never fed."""
        if not continuation or len(continuation) > self.max_length:
            raise UsageError(
                "continuation-length",
                f"cannot score a continuation of {len(continuation)} tokens",
                why=f"the package was built for {self.max_length}, and one at least is needed",
                next="build with a larger --max-seq-len",
            )
        window = [*context, *continuation][-(self.max_length + 1) :]
        split = len(window) - len(continuation)
        return tuple(window[:split]), tuple(window[split:])

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of whole texts, in disjoint windows as long as the cache."""
        windows: list[tuple[object, list[int], list[int]]] = []
        counts = []
        for request in requests:
            (text,) = request.args
            found = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            made = [(None, *make_disjoint_window(window)) for window in found]
            windows += made
            counts.append(len(made))
        scores = iter(self._loglikelihood_tokens(windows))
        return [math.fsum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return greedy answers, cut at the first stop text."""
        texts: dict[int, str] = {}
        order = sorted(range(len(requests)), key=lambda index: str(requests[index].args[0]))
        for index in order:
            context, arguments = requests[index].args
            texts[index] = self._generate(context, arguments)
            self._on_share("answers", len(texts) / len(requests))
        return [texts[index] for index in range(len(requests))]

    def _generate(self, text: str, arguments: Mapping[str, Any]) -> str:
        wanted = normalize_gen_kwargs(dict(arguments), self.max_gen_toks)
        eos = self._model.tokenizer.decode([self.eot_token_id])
        until = handle_stop_sequences(wanted["until"], eos=eos)
        limit = int(wanted["max_gen_toks"])
        if wanted.get("do_sample") and float(wanted.get("temperature") or 0.0) > 0.0:
            raise UsageError(
                "sampling-task",
                "cannot answer a task that samples",
                why=f"it asks for temperature {wanted['temperature']}, answers here are greedy",
                next="choose another task",
            )
        room = self.max_length - limit
        if room < 1:
            raise UsageError(
                "answer-too-long",
                f"a task's answers of up to {limit} tokens leave no room for its questions",
                why=f"the package was built for {self.max_length} tokens",
                next=f"build with a --max-seq-len well above {limit}",
            )
        context = tuple(self.tok_encode(text)[-room:])
        said, _ = self._model.answer(context, limit, until)
        return str(postprocess_generated_text(said, until, None))
