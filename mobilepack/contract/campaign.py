"""A measurement campaign: the file that asks for it, and what each of its cells brought."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mobilepack.contract.base import Contract
from mobilepack.contract.bench import Bench
from mobilepack.contract.profile import Profile

CELLS = "cells"
"""Folder of a campaign that holds a file per measurement."""

StudyKind = Literal["models", "lengths", "quantisation", "hardware", "long context"]


class CampaignRecipe(Contract):
    """A recipe by name; what is None the target decides.

    Attributes:
        target: Name of a target.
        linear: `--recipe` of `mobilepack build`; so are the next three.
    """

    target: str = "xnnpack"
    linear: str | None = None
    group_size: int | None = None
    embedding: str | None = None
    kv_cache: str | None = None


class CampaignModel(Contract):
    """A model by name: a checkpoint, or a published shape with random weights.

    Attributes:
        source: Checkpoint folder, GGUF file or hub id; `embedded` for the embedded model.
        shape: Name of a published shape (`mobilepack campaign --shapes` lists them).
    """

    source: str | None = None
    shape: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.source is None) == (self.shape is None):
            raise ValueError("give either source or shape")
        return self


class Study(Contract):
    """A question of the survey and what answers it.

    Attributes:
        kind: `models`: first token and decode by model, memory split, breakdown; `lengths`: latency
            against prompt length; `quantisation`: recipes of one model; `hardware`: each decoded
            token's time on each device; `long context`: memory and speed by depth.
        models: Names of `[models.NAME]`.
        recipes: Names of `[recipes.NAME]`.
        devices: What `-d` takes.
        prompt_tokens: Prompt lengths that are timed.
        generate_tokens: Tokens that are generated after each prompt length.
        depths: Tokens in the cache before the clock starts.
        profile: Whether operators are profiled too (on this machine, XNNPACK).
    """

    kind: StudyKind
    models: tuple[str, ...] = Field(min_length=1)
    recipes: tuple[str, ...] = ("default",)
    devices: tuple[str, ...] = ("host",)
    prompt_tokens: tuple[int, ...] = (50,)
    generate_tokens: int = Field(default=50, ge=0)
    depths: tuple[int, ...] = (0,)
    profile: bool = False


class CampaignFile(Contract):
    """What `mobilepack campaign` reads; the defaults are the survey's (arXiv 2409.15790, 4.1).

    Attributes:
        context: Positions of the KV cache.
        cooldown_s: Pause before each round, seconds.
        models: By the names that studies use; so are the recipes. The recipe `default` is there
            without being written.
    """

    title: str = Field(min_length=3)
    context: int = Field(default=2048, ge=2)
    prefill_chunk: int = Field(default=512, ge=1)
    repetitions: int = Field(default=5, ge=1)
    warmups: int = Field(default=1, ge=0)
    cooldown_s: float = Field(default=0.0, ge=0)
    threads: int = Field(default=0, ge=0)
    timeout_s: float = Field(default=3600.0, gt=0)
    models: dict[str, CampaignModel]
    recipes: dict[str, CampaignRecipe] = Field(default_factory=dict)
    studies: tuple[Study, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        problems = []
        for number, study in enumerate(self.studies, 1):
            unknown = [f"model {name!r}" for name in study.models if name not in self.models]
            known = {*self.recipes, "default"}
            unknown += [f"recipe {name!r}" for name in study.recipes if name not in known]
            problems += [f"study {number} names the {what}, which is not there" for what in unknown]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def recipe(self, name: str) -> CampaignRecipe:
        """Return a recipe by its name."""
        return self.recipes.get(name, CampaignRecipe())


class CellKey(Contract):
    """What tells one measurement of a campaign from another; its content id names the file.

    Attributes:
        settings: What was asked of model, recipe and protocol, as (name, value).
    """

    model: str
    recipe: str
    device: str
    settings: tuple[tuple[str, str], ...]
    prompt_tokens: tuple[int, ...]
    generate_tokens: int
    depths: tuple[int, ...]
    profile: bool


class MemoryParts(Contract):
    """The survey's split of memory, bytes; see `Bench` for how the peak was taken.

    Attributes:
        parameters: Weights as the program stores them.
        kv_cache: At the campaign's context.
        compute_buffer: Intermediate tensors.
        other: What the peak over the empty process has beyond these; 0 where it has less.
    """

    parameters: int
    kv_cache: int
    compute_buffer: int
    other: int


class Cell(Contract):
    """One measurement: a package on a device.

    Attributes:
        parameters: Numbers in the model.
        bench: None if it could not be measured.
        failure: Why, else empty.
        memory: None without a bench.
        profile: Of the operators, where it was asked for and can be had.
        why_no_profile: Why not, where it was asked for.
        steps_ms: Of the longest generation, the median time of each token, in order.
    """

    schema_: Literal["mobilepack/campaign-cell/1"] = Field(
        "mobilepack/campaign-cell/1", alias="schema"
    )
    key: CellKey
    utc: str
    parameters: int = 0
    program_bytes: int = 0
    random_weights: bool = False
    bench: Bench | None = None
    failure: str = ""
    memory: MemoryParts | None = None
    profile: Profile | None = None
    why_no_profile: str = ""
    steps_ms: tuple[float, ...] = ()
