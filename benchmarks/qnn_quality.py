"""Measure what QNN's recipes cost the embedded model: `python -m benchmarks.qnn_quality`.

Nothing is lowered. The graphs, ranges and integers are those that `mobilepack build` makes of the
recipe, computed in eager torch with the HTP's arithmetic (`backends/qnn/fake_quantised.py`); tests
hold a program in the emulator against just that. Two figures, both of text never trained on:

- perplexity over four rows of 256 tokens, as a ratio to fp32;
- the questions of `mobilepack eval`'s own set whose right answer is what the model would say, token
  by token the most likely one up to the end of the turn.

Writes JSON; a table of docs/targets/qnn.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.host import describe_host
from mobilepack.backends.qnn.constants import Constants, QuantisedConstants
from mobilepack.backends.qnn.encodings import HEAD, Codes
from mobilepack.backends.qnn.evaluate import Case, evaluate
from mobilepack.backends.qnn.fake_quantised import FakeQuantised
from mobilepack.backends.qnn.request import MASK_QUANTISED
from mobilepack.backends.qnn.sequences import Tracer, calibrated
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.static import METHODS
from mobilepack.models.tables import make_tables
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import held_out_text
from mobilepack.models.zoo.tasks import tasks
from mobilepack.pipeline.calibration_rows import text_rows
from mobilepack.pipeline.qnn import CALIBRATION_ROWS, shared_parameters, write_weights

SCHEMA = "mobilepack.benchmarks.qnn_quality/1"
RESULT = Path(__file__).parent / "results" / "qnn-quality.json"
CONTEXT, PREFILL, ROWS, ROW = 512, 128, 4, 256
RECIPES: dict[str, tuple[Literal[4, 8], int]] = {
    "16a8w": (8, 0),
    "16a4w": (4, 0),
    "16a4w --group-size 64": (4, 64),
    "16a4w --group-size 32": (4, 32),
}
Ids = tuple[int, ...]
Run = Callable[[Sequence[Case]], list[list[torch.Tensor]]]


def rows_of(tokenizer: Tokenizer) -> list[Ids]:
    """Return held-out text, each document from its beginning to its end token."""
    documents = (
        [*tokenizer.encode(text, add_bos=True), *tokenizer.eos_ids[:1]]
        for text in held_out_text(12)
    )
    ids = tuple(chain.from_iterable(documents))
    return [ids[ROW * n : ROW * (n + 1)] for n in range(ROWS)]


def questions_of(folder: Path, per_kind: int) -> list[tuple[Ids, Ids]]:
    """Return the ids of each question and those of its right answer."""
    tokenizer, template = Tokenizer.open(folder), ChatTemplate.open(folder)
    found = []
    for item in tasks(per_kind):
        text = template.render([ChatMessage("user", item.messages[-1].content)])
        prompt = tokenizer.encode(text, add_bos=None if template.plain else False)
        turns = [ChatMessage("user", item.messages[-1].content)]
        turns.append(ChatMessage("assistant", item.answer))
        whole = template.render(turns, add_generation_prompt=False)
        ids = tokenizer.encode(whole, add_bos=None if template.plain else False)
        stop = next(n for n in range(len(prompt), len(ids)) if ids[n] in tokenizer.eos_ids)
        found.append((tuple(prompt), tuple(ids[len(prompt) : stop + 1])))
    return found


def measured(
    run: Run, tracer: Tracer, rows: Sequence[Ids], questions: Sequence[tuple[Ids, Ids]]
) -> tuple[float, torch.Tensor, int]:
    """Return the mean cross entropy, the most likely tokens, and how many answers are right."""
    logits = [outputs[0] for outputs in run([tracer.text(r, MASK_QUANTISED) for r in rows])]
    following = torch.tensor([row[1:] for row in rows]).flatten()
    scored = torch.cat([one[:-1] for one in logits])
    loss = float(torch.nn.functional.cross_entropy(scored, following))
    right = 0
    for start in range(0, len(questions), 40):
        part = questions[start : start + 40]
        said = run([tracer.text((*asked, *answer), MASK_QUANTISED) for asked, answer in part])
        for (asked, answer), outputs in zip(part, said, strict=True):
            best = outputs[0][len(asked) - 1 : -1].argmax(-1)
            right += tuple(best.tolist()) == answer
    return loss, scored.argmax(-1), right


class Model:
    """The embedded model, calibrated as `mobilepack build` does it."""

    def __init__(self, model: LoadedModel, folder: Path) -> None:
        self.model, self.tracer = model, Tracer(model.spec, CONTEXT, "together", quantised=True)
        path, shared = folder / "weights.safetensors", shared_parameters(model)
        write_weights(model, shared, path)
        self.constants = Constants(path, shared, make_tables(model.spec, CONTEXT))
        lengths = dict(zip(METHODS, (PREFILL, 1), strict=True))
        graphs = [self.tracer.graph(tokens, CONTEXT - 1) for tokens in lengths.values()]
        rows = text_rows(model.checkpoint.folder, None, CONTEXT)[:CALIBRATION_ROWS]
        groups, ranges = calibrated(
            graphs, self.tracer, self.constants, rows, MASK_QUANTISED, lambda _: None
        )
        self.codes = Codes(groups, ranges)

    def plainly(self, cases: Sequence[Case]) -> list[list[torch.Tensor]]:
        """Run cases in fp32."""
        return evaluate(cases, self.constants.operands, lambda _, v, __: v, lambda _: None)

    def quantised(self, bits: Literal[4, 8], block: int) -> Run:
        """Return what runs cases in a recipe."""
        integers = QuantisedConstants(self.constants, frozenset({HEAD}), bits, block)
        model = FakeQuantised(integers, self.codes)
        return lambda cases: model.run(cases, lambda _: None)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-kind", type=int, default=20, help="questions of each kind")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = embedded_path()
    rows, questions = rows_of(Tokenizer.open(folder)), questions_of(folder, options.per_kind)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mobilepack-qnn-quality-") as text:
        model = Model(open_model(str(folder)), Path(text))
        plain, best, right = measured(model.plainly, model.tracer, rows, questions)
        for recipe, asked in RECIPES.items():
            loss, said, answers = measured(model.quantised(*asked), model.tracer, rows, questions)
            results.append(
                {
                    "recipe": recipe,
                    "ppl_ratio": round(math.exp(loss - plain), 4),
                    "top1_agreement": round(float((said == best).float().mean()), 4),
                    "right": answers,
                }
            )
            print(results[-1], flush=True)
    found = {
        "schema": SCHEMA,
        "started_utc": started,
        "host": asdict(describe_host()),
        "load_average": os.getloadavg(),
        "cpu_s": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 1),
        "tokens": sum(len(row) - 1 for row in rows),
        "fp32": {"ppl": round(math.exp(plain), 4), "right": right, "asked": len(questions)},
        "results": results,
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
