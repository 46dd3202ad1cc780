"""Families with experts, states or latent attention, beyond what `tests/matrix` checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilepack.backends.xnnpack.emit import ProgramFile, Sources, fill
from mobilepack.backends.xnnpack.lower import Lowering
from mobilepack.backends.xnnpack.lowered import Lowered
from mobilepack.contract.manifest import Recipe
from mobilepack.harness.runner import Logits, Refeeding, TokenArray
from mobilepack.models.spec import parameter_shapes
from mobilepack.models.streaming import Lane, run_lanes
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.reference import PERTURBATION, quantisation_of
from tests.backends.xnnpack.programs import FP32_RECIPE
from tests.models.hybrids import reference, write_checkpoint
from tests.models.networks import random_ids, relative_rms
from tests.runtime import Program

pytestmark = pytest.mark.slow

MAX_RMS_OVER_STD = 1e-5  # measured 2e-7 to 2e-6
MAX_RMS_OVER_FLOOR = 2.0
MARGIN = 1e-3  # between the last chosen logit and the next; fp32 differs by 2e-6 at most
STATEFUL = ("lfm2", "mamba2", "recurrent_gemma")
ROUTED = ("qwen3_moe", "qwen2_moe", "olmoe", "mixtral", "granitemoe", "phimoe")


@dataclass
class Built:
    """A checkpoint, opened, and its transformers model."""

    family: str
    theirs: Any
    model: LoadedModel
    folder: Path
    context: int
    chunk: int

    def __post_init__(self) -> None:
        self.exported = export_decoder(self.model.spec, self.context, self.chunk)
        self.tables = make_tables(self.model.spec, self.context)

    def prompts(self) -> list[tuple[int, ...]]:
        return [random_ids(self.model.spec, self.chunk + 8, seed) for seed in range(3)]

    def reference(self, ids: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = self.theirs(torch.tensor([list(ids)]), use_cache=False).logits
        return logits[0]

    def lanes(self, recipe: Recipe, perturbation: float = 0.0) -> list[torch.Tensor]:
        kind = quantisation_of(recipe)
        lanes = [Lane(ids, kind, perturbation) for ids in self.prompts()]
        return run_lanes(self.exported, self.model.weights, self.tables, lanes)

    def program(self, recipe: Recipe) -> tuple[Program, Lowered]:
        identities = {
            name: self.model.weights.identity(name) for name in parameter_shapes(self.model.spec)
        }
        lowered = Lowering(self.exported, recipe, identities, self.context).run({})
        path = self.folder / f"{recipe.linear}-{recipe.kv_cache}.pte"
        file = ProgramFile(path, len(lowered.head))
        fill(file, lowered.layout, Sources(self.model.weights, self.tables))
        file.finish(lowered.head, lowered.layout.size)
        file.close()
        return Program(path), lowered


def build(folder: Path, family: str, chunk: int = 16, **overrides: Any) -> Built:
    theirs = write_checkpoint(folder, family, **overrides)
    return Built(family, theirs, open_model(folder), folder, chunk + 8, chunk)


def run(program: Program, built: Built, expected: list[torch.Tensor]) -> list[float]:
    """Feed prompts of length 1, odd and maximal one after the other, then 8 tokens one by one."""
    found = []
    for ids, logits, first in zip(built.prompts(), expected, (1, 7, built.chunk), strict=True):
        calls = (first,) + (1,) * 8
        ends = [sum(calls[: i + 1]) - 1 for i in range(len(calls))]
        found.append(relative_rms(program.feed(ids, calls), logits[ends]))
    return found


@pytest.mark.parametrize("family", ROUTED)
def test_routers_choose_by_a_margin_that_rounding_does_not_cross(family: str) -> None:
    """The fp32 comparison is one of the same experts; 8da4w may cross it, and so may its floor."""
    theirs = reference(family)
    count, smallest = theirs.config.num_experts_per_tok, torch.inf
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 320, (1, 24), generator=generator)
        with torch.no_grad():
            routed = theirs(ids, use_cache=False, output_router_logits=True).router_logits
        for logits in routed:
            best = logits.topk(count + 1, dim=-1).values
            smallest = min(smallest, float((best[..., count - 1] - best[..., count]).min()))
    assert smallest > MARGIN


@pytest.mark.parametrize("family", ["qwen2_moe", "minicpm3", "lfm2"])
def test_a_half_precision_cache_serves_them_too(tmp_path: Path, family: str) -> None:
    built = build(tmp_path, family)
    recipe = Recipe(embedding="4w", kv_cache="fp16")
    quantised, noisy = built.lanes(recipe), built.lanes(recipe, PERTURBATION)
    floor = relative_rms(torch.cat(noisy), torch.cat(quantised))
    program, _ = built.program(recipe)
    assert max(run(program, built, quantised)) <= MAX_RMS_OVER_FLOOR * floor


@pytest.mark.parametrize("family", STATEFUL)
def test_a_prompt_in_any_calls_is_the_prompt_token_by_token(tmp_path: Path, family: str) -> None:
    """Also over more than two chunks of Mamba 2's parallel form, and with a last one cut short."""
    built = build(tmp_path, family, chunk=150, **LONGER.get(family, {}))
    program, _ = built.program(FP32_RECIPE)
    ids = random_ids(built.model.spec, 158)
    steps = program.feed(ids, (1,) * 158)
    for calls in ((150, 8), (64, 64, 30), (65, 1, 63, 2), (3, 128, 27)):
        ends = [sum(calls[: i + 1]) - 1 for i in range(len(calls))]
        assert relative_rms(program.feed(ids, calls), steps[ends]) <= MAX_RMS_OVER_STD
    expected = built.reference(ids)
    assert relative_rms(steps, expected) <= MAX_RMS_OVER_STD


LONGER: dict[str, dict[str, Any]] = {"lfm2": {"max_position_embeddings": 256}}


@pytest.mark.parametrize("family", STATEFUL)
def test_a_state_cannot_be_rewound_unseen(tmp_path: Path, family: str) -> None:
    built = build(tmp_path, family)
    program, _ = built.program(FP32_RECIPE)
    ids = random_ids(built.model.spec, 20)
    first = program.feed(ids, (8, 8, 1, 1))
    for position in (4, 19, 17):
        with pytest.raises(RuntimeError):
            program.call(ids[:2], position)
    assert torch.equal(program.feed(ids, (8, 8, 1, 1)), first)
    assert program.call(ids[18:19], 18).shape == (320,)


@pytest.mark.parametrize("family", STATEFUL)
def test_a_harness_feeds_again_what_a_rewind_needs(tmp_path: Path, family: str) -> None:
    built = build(tmp_path, family)
    program, _ = built.program(FP32_RECIPE)
    ids = np.array(random_ids(built.model.spec, 20), dtype=np.int64)
    whole = program.feed(ids.tolist(), (16, 1, 1))

    def call(tokens: TokenArray, position: int) -> Logits:
        logits: Logits = program.call(tokens.tolist(), position).numpy()
        return logits

    step = Refeeding(call, built.chunk)
    for start, end in ((0, 9), (9, 12), (4, 16), (16, 17), (17, 18), (16, 17)):
        found = step(ids[start:end], start)
    assert torch.equal(torch.from_numpy(found), whole[1])
