"""Assemble a package: copy what travels with the program, checksum all, write the manifest."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mobilepack.contract.base import content_id, write_atomically
from mobilepack.contract.compression import CompressionReport
from mobilepack.contract.manifest import (
    BuildPlan,
    FileEntry,
    Licence,
    Manifest,
    MemorySplit,
    Method,
    Placement,
    StageCost,
    StaticForm,
    TensorSpec,
    TokenizerInfo,
    WeightFormat,
)
from mobilepack.contract.npu import Npu
from mobilepack.models.tokenizer import Tokenizer, write_tokenizer
from mobilepack.models.weights import LoadedModel

PROGRAM = "model.pte"
_CONFIGS = ("config.json", "generation_config.json")


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """What the lowering knows about the program it made.

    Attributes:
        methods: Empty for the dynamic form's one method.
        static: How to call the methods of the static form.
        runtime_version: As in `Manifest`.
        ranges: `Manifest.activation_ranges`.
        npu: `Manifest.npu`.
    """

    metadata: Mapping[str, int | bool | tuple[int, ...]]
    placement: Placement
    weights: tuple[WeightFormat, ...]
    memory: MemorySplit
    methods: tuple[Method, ...] = ()
    static: StaticForm | None = None
    runtime_version: str | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    npu: Npu | None = None


def copy_companions(model: LoadedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Copy tokenizer, configs and licence files of the checkpoint into the package."""
    write_tokenizer(tokenizer, model.checkpoint.folder, folder)
    names = set(model.checkpoint.licence.files)
    names |= {name for name in _CONFIGS if (model.checkpoint.folder / name).is_file()}
    for name in sorted(names):
        shutil.copyfile(model.checkpoint.folder / name, folder / name)


def write_manifest(  # noqa: PLR0913  what a manifest is made of
    folder: Path,
    model: LoadedModel,
    plan: BuildPlan,
    facts: ProgramFacts,
    tokenizer: TokenizerInfo,
    stages: Iterable[StageCost],
    compression: CompressionReport | None = None,
) -> Manifest:
    """Checksum every file of the folder and write manifest.json beside them."""
    manifest = Manifest(
        plan_id=content_id(plan),
        plan=plan,
        parameters=model.weights.parameters(),
        files=tuple(_entries(folder)),
        methods=facts.methods or (_forward(model, plan),),
        static=facts.static,
        runtime_version=facts.runtime_version,
        activation_ranges=dict(facts.ranges),
        npu=facts.npu,
        metadata=dict(facts.metadata),
        placement=facts.placement,
        weights=facts.weights,
        quantised_share=_quantised_share(facts.weights),
        memory=facts.memory,
        tokenizer=tokenizer,
        licence=_licence(model),
        compression=compression,
        stages=tuple(stages),
    )
    write_atomically(folder / "manifest.json", manifest.to_json())
    return manifest


def _entries(folder: Path) -> Iterable[FileEntry]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not relative.name.startswith("."):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield FileEntry(path=relative.as_posix(), bytes=path.stat().st_size, sha256=digest)


def _forward(model: LoadedModel, plan: BuildPlan) -> Method:
    return Method(
        name="forward",
        inputs=(
            TensorSpec(name="tokens", dtype="int64", shape=(1, plan.prefill_chunk), dynamic=(1,)),
            TensorSpec(name="input_pos", dtype="int64", shape=(1,)),
        ),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, model.spec.vocab_size)),),
    )


def _quantised_share(weights: tuple[WeightFormat, ...]) -> float:
    total = sum(row.parameters for row in weights)
    plain = sum(row.parameters for row in weights if row.format in ("fp32", "fp16"))
    return (total - plain) / total


def _licence(model: LoadedModel) -> Licence:
    return model.checkpoint.licence
