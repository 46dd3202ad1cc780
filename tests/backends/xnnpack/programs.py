"""Tiny programs of the fast path: lowered from random weights, written, and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mobilepack.backends.xnnpack.emit import Observer, ProgramFile, Sources, fill
from mobilepack.contract.manifest import Recipe
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.streaming import FP32, Lane, run_lanes
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.reference import PERTURBATION, quantisation_of
from tests.models.networks import RandomWeights, tables, tiny_spec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from mobilepack.backends.xnnpack.lowered import Lowered

FP32_RECIPE = Recipe(linear="fp32", group_size=0, embedding="fp32")
RECIPES = {
    "fp32": FP32_RECIPE,
    "8da4w+4w": Recipe(embedding="4w"),
    "8da4w+8w": Recipe(embedding="8w"),
}
HALF_RECIPES = {
    "fp32+kv16": FP32_RECIPE.model_copy(update={"kv_cache": "fp16"}),
    "8da4w+kv16": Recipe(kv_cache="fp16"),
    "fp32+kv8": FP32_RECIPE.model_copy(update={"kv_cache": "int8"}),
    "8da4w+kv8": Recipe(kv_cache="int8"),
}


NOTHING_SKIPPED = Observer()


@dataclass(frozen=True)
class Tiny:
    """A model with its export.

    Attributes:
        context: Positions of the cache.
        chunk: Longest call.
    """

    spec: DecoderSpec
    context: int = 24
    chunk: int = 8

    @cached_property
    def weights(self) -> RandomWeights:
        """Random weights, always the same."""
        return RandomWeights(self.spec)

    @cached_property
    def exported(self) -> ExportedProgram:
        """The exported decoder."""
        return export_decoder(self.spec, self.context, self.chunk)

    @property
    def metadata(self) -> dict[str, int | bool | tuple[int, ...]]:
        """Constant methods of every kind."""
        return {"get_bos_id": 1, "get_eos_ids": (2, 7), "use_kv_cache": True}

    def lower(self, recipe: Recipe) -> Lowered:
        """Lower without weights."""
        from mobilepack.backends.xnnpack.lower import Lowering

        identities = {name: self.weights.identity(name) for name in self.weights.names()}
        return Lowering(self.exported, recipe, identities, self.context).run(self.metadata)

    def sources(self) -> Sources:
        """Return what the writer reads from."""
        return Sources(self.weights, tables(self.spec, self.context))

    def write(self, lowered: Lowered, path: Path, observer: Observer = NOTHING_SKIPPED) -> Path:
        """Write a program file."""
        file = ProgramFile(path, len(lowered.head))
        fill(file, lowered.layout, self.sources(), observer)
        file.finish(lowered.head, lowered.layout.size)
        file.close()
        return path

    def logits(self, ids: tuple[int, ...], recipe: Recipe) -> torch.Tensor:
        """Return what eager computes with the recipe's rounding after every token."""
        (found,) = self._lanes(Lane(ids, quantisation_of(recipe)))
        return found

    def floor(self, prompts: list[tuple[int, ...]], recipe: Recipe) -> float:
        """Return how far the recipe's eager logits move if its inputs are perturbed: rms / std."""
        kind = quantisation_of(recipe)
        clean = torch.cat(self._lanes(*(Lane(ids, kind) for ids in prompts)))
        noisy = torch.cat(self._lanes(*(Lane(ids, kind, PERTURBATION) for ids in prompts)))
        return float((noisy - clean).pow(2).mean().sqrt() / clean.std())

    def _lanes(self, *lanes: Lane) -> list[torch.Tensor]:
        return run_lanes(self.exported, self.weights, tables(self.spec, self.context), lanes)


def tiny(family: str = "llama", *, context: int = 24, chunk: int = 8, **options: Any) -> Tiny:
    """Return a tiny model of a family."""
    return Tiny(tiny_spec(family, **options), context, chunk)


def is_plain(recipe: Recipe) -> bool:
    """Say whether a recipe rounds nothing."""
    return quantisation_of(recipe) == FP32
