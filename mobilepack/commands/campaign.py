"""campaign: models by recipes by lengths by devices, resumable, in the survey's views."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import ValidationError

from mobilepack.cache import cache_folder
from mobilepack.commands.build import Built
from mobilepack.commands.campaign_cell import built_package, measured_cell, now_utc
from mobilepack.contract.base import content_id, problems, write_atomically
from mobilepack.contract.campaign import (
    CELLS,
    CampaignFile,
    Cell,
    CellKey,
    Study,
)
from mobilepack.errors import MobilepackError, UsageError
from mobilepack.harness.base import Harness
from mobilepack.toml_file import read_toml

SURVEY = Path(__file__).resolve().parent / "survey.toml"
"""The survey's own campaign, for `--survey`."""

OnCell = Callable[[str, int, int], None]
"""Told what begins, how many cells are done, and how many there are."""

HarnessOf = Callable[[str], Harness]

Builder = Callable[[CampaignFile, str, str, Path], Built]
"""Builds a model (by name) with a recipe (by name) below a work folder."""


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """Options of `mobilepack campaign`.

    Attributes:
        out: Where cells, tables and pictures go.
        models: Only these names; all if empty.
        keep_packages: Whether packages and random checkpoints stay when their cells are measured.
    """

    out: Path
    models: tuple[str, ...] = ()
    keep_packages: bool = False


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """Every cell of a campaign, in the file's order.

    Attributes:
        measured: How many were measured by this call; the others were there.
    """

    cells: tuple[Cell, ...]
    measured: int

    @property
    def failed(self) -> tuple[Cell, ...]:
        """Those that could not be measured."""
        return tuple(cell for cell in self.cells if cell.failure)


def read_campaign(path: Path) -> CampaignFile:
    """Read a campaign file.

    Raises:
        UsageError: It is missing, no TOML, or breaks the schema; all problems at once.
    """

    def unreadable(err: Exception) -> UsageError:
        return UsageError(
            "unreadable-campaign",
            f"cannot read the campaign {path}",
            why=str(err),
            next="correct the file; docs/tutorials/campaign.md has one to start from",
        )

    data = read_toml(path, unreadable)
    try:
        return CampaignFile.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as err:
        raise UsageError(
            "invalid-campaign",
            f"{path} is not a valid campaign",
            why=problems(err),
            next="correct the keys named; docs/tutorials/campaign.md says what they mean",
        ) from err


def keys_of(campaign: CampaignFile) -> tuple[CellKey, ...]:
    """Return what a campaign measures, each once, models together so that each is built once."""
    keys = [
        _key(campaign, study, model, recipe, device)
        for study in campaign.studies
        for model in study.models
        for recipe in study.recipes
        for device in study.devices
    ]
    order = {name: index for index, name in enumerate(campaign.models)}
    profiled = {_plain(key) for key in keys if key.profile}
    unique = dict.fromkeys(_plain(key) for key in keys)
    both = (key.model_copy(update={"profile": key in profiled}) for key in unique)
    return tuple(sorted(both, key=lambda key: (order[key.model], key.recipe)))


def _plain(key: CellKey) -> CellKey:
    return key.model_copy(update={"profile": False})


def _key(campaign: CampaignFile, study: Study, model: str, recipe: str, device: str) -> CellKey:
    asked = campaign.models[model].model_dump() | campaign.recipe(recipe).model_dump()
    sizes = ("context", "prefill_chunk", "repetitions", "warmups", "cooldown_s", "threads")
    settings = asked | {name: getattr(campaign, name) for name in sizes}
    return CellKey(
        model=model,
        recipe=recipe,
        device=device,
        settings=tuple((n, str(value)) for n, value in settings.items() if value is not None),
        prompt_tokens=study.prompt_tokens,
        generate_tokens=study.generate_tokens,
        depths=study.depths,
        profile=study.profile and device == "host",
    )


def campaign(
    asked: CampaignFile,
    options: CampaignOptions,
    harness_of: HarnessOf,
    *,
    builder: Builder | None = None,
    on_cell: OnCell = lambda what, done, total: None,
) -> CampaignResult:
    """Measure what is missing; every cell is written as soon as it is known.

    Args:
        asked: The campaign.
        options: Where and what.
        harness_of: Returns the harness of a device that a study names.
        builder: Makes the packages; `mobilepack build` unless tests say otherwise.
        on_cell: Told of the progress.

    Raises:
        UsageError: `options.models` names what the campaign does not have.
    """
    unknown = sorted(set(options.models) - set(asked.models))
    if unknown:
        raise UsageError(
            "unknown-model",
            f"the campaign has no model {', '.join(unknown)}",
            why="it has " + ", ".join(asked.models),
            next="name one of them, or leave --only out for all",
        )
    keys = [key for key in keys_of(asked) if not options.models or key.model in options.models]
    known = ((key, _known(options, key)) for key in keys)
    cells = {key: cell for key, cell in known if cell is not None}
    measured = 0
    for name, group in groupby(keys, key=lambda key: key.model):
        missing = [key for key in group if key not in cells]
        work = _Work(asked, options, harness_of, builder or built_package)
        for event in work.of_model(name, missing):
            on_cell(_title(event), len(cells), len(keys))
            if isinstance(event, Cell):
                cells[event.key] = event
                measured += 1
    on_cell("", len(keys), len(keys))
    return CampaignResult(tuple(cells[key] for key in keys), measured)


def _title(begun: CellKey | Cell) -> str:
    key = begun.key if isinstance(begun, Cell) else begun
    prompts = "+".join(map(str, key.prompt_tokens))
    return f"{key.model}, {key.recipe}, {key.device}, prompt {prompts} and {key.generate_tokens}"


def _path(options: CampaignOptions, key: CellKey) -> Path:
    return options.out / CELLS / f"{content_id(key)[:16]}.json"


def _known(options: CampaignOptions, key: CellKey) -> Cell | None:
    """Return a cell of this version that was measured before and did not fail."""
    try:
        cell = Cell.read(_path(options, key))
    except UsageError:
        return None
    return None if cell.key != key or cell.failure else cell


@dataclass(frozen=True, slots=True)
class _Work:
    """What measuring needs."""

    asked: CampaignFile
    options: CampaignOptions
    harness_of: HarnessOf
    builder: Builder

    def of_model(self, name: str, keys: Sequence[CellKey]) -> Iterator[CellKey | Cell]:
        """Yield each key as its measurement begins, and its cell when it is written."""
        if not keys:
            return
        folder = cache_folder("campaign") / name
        try:
            for recipe, group in groupby(keys, key=lambda key: key.recipe):
                yield from self._of_recipe(folder, recipe, tuple(group))
        finally:
            if not self.options.keep_packages:
                shutil.rmtree(folder, ignore_errors=True)

    def _of_recipe(
        self, folder: Path, recipe: str, keys: Sequence[CellKey]
    ) -> Iterator[CellKey | Cell]:
        built: Built | None = None
        for key in keys:
            yield key
            try:
                if built is None:
                    built = self.builder(self.asked, key.model, recipe, folder)
                cell = measured_cell(self.asked, key, built, self.harness_of(key.device))
            except MobilepackError as err:
                cell = Cell(key=key, utc=now_utc(), failure=f"{err.what}: {err.why}")
            write_atomically(_path(self.options, key), cell.to_json())
            yield cell
        if built is not None and not self.options.keep_packages:
            shutil.rmtree(built.folder)
