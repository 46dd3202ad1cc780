"""build: turn a checkpoint into one package per target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mobilepack.commands.attached import attached_soc
from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import BuildPlan, Manifest
from mobilepack.contract.package import MANIFEST, open_package
from mobilepack.errors import UsageError
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.plan import Choices, plan_build
from mobilepack.pipeline.stages import OnStage, Stages, silent
from mobilepack.pipeline.workspace import locked
from mobilepack.target import Target, load_target


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of `mobilepack build`.

    Attributes:
        model: Checkpoint folder, GGUF file or hub id; None for the embedded model.
        targets: Names of targets, or paths of target files.
        out: Where packages go, one folder per target.
        choices: Recipe and lengths; what is None the target decides.
        revision: Branch, tag or commit of a hub model.
        offline: Use only what is on this machine.
        force: Build even if the package is up to date.
        attached: Tells the SoC of the attached phone.
    """

    model: str | None = None
    targets: tuple[str, ...] = ("xnnpack",)
    out: Path = Path("out")
    choices: Choices = field(default_factory=Choices)
    revision: str | None = None
    offline: bool = False
    force: bool = False
    attached: Callable[[], str | None] = attached_soc


@dataclass(frozen=True, slots=True)
class Built:
    """One package.

    Attributes:
        up_to_date: Nothing was built: the package was there, whole, and of this plan.
    """

    folder: Path
    manifest: Manifest
    up_to_date: bool


def plan(options: BuildOptions) -> tuple[BuildPlan, ...]:
    """Return what a build would do, one plan per target, without doing it (`--dry-run`)."""
    model = _open(options)
    try:
        return _plans(model, options)
    finally:
        model.close()


def build(options: BuildOptions, *, on_stage: OnStage = silent) -> tuple[Built, ...]:
    """Build every target of the options.

    Raises:
        UsageError: Model, target or options are wrong.
        BuildError: A stage failed.
    """
    model = _open(options)
    try:
        return tuple(_one(model, plan, options, on_stage) for plan in _plans(model, options))
    finally:
        model.close()


def _open(options: BuildOptions) -> LoadedModel:
    source = str(embedded_path()) if options.model is None else options.model
    return open_model(source, revision=options.revision, offline=options.offline)


def _plans(model: LoadedModel, options: BuildOptions) -> tuple[BuildPlan, ...]:
    targets = [load_target(name) for name in dict.fromkeys(options.targets)]
    return tuple(plan_build(model, target, for_phone(options, target)) for target in targets)


def for_phone(options: BuildOptions, target: Target) -> Choices:
    """Return the choices; a target of a SoC takes the attached phone's unless one was named."""
    choices = options.choices
    if target.soc_model is None or choices.soc_model is not None:
        return choices
    return replace(choices, soc_model=options.attached())


def _one(model: LoadedModel, plan: BuildPlan, options: BuildOptions, on_stage: OnStage) -> Built:
    folder = options.out / plan.target
    with locked(options.out, plan.target):
        current = None if options.force else _current(folder, content_id(plan))
        if current is not None:
            return Built(folder, current, up_to_date=True)
        from mobilepack.pipeline.build import build_package

        manifest = build_package(
            model,
            plan,
            options.out,
            Stages(on_stage),
            options.choices.compression,
            options.choices.qnn_sdk,
        )
        return Built(folder, manifest, up_to_date=False)


def _current(folder: Path, plan_id: str) -> Manifest | None:
    """Return the manifest of a whole package of this very plan, None if there is none."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = open_package(folder).manifest
    except UsageError:
        return None  # damaged or of another version: build it again
    return manifest if manifest.plan_id == plan_id else None
