"""Packages whose program is wrong, while their reference is right: what a miscompile looks like.

A package is built as usual; then its program is lowered and written again with one ingredient that
is not what it should be, and signed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mobilepack.backends.xnnpack.lower import Lowering
from mobilepack.backends.xnnpack.lowered import Lowered
from mobilepack.contract.manifest import KvCacheRecipe, Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.models.source import Source, View
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import open_model
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.lower import runner_metadata
from mobilepack.pipeline.program import write_program

Tables = Mapping[str, torch.Tensor]


class Changed(View):
    """Weights of which one is something else."""

    def __init__(self, base: Source, name: str, change: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__(base)
        self._name, self._value = name, change(base.tensor(name))

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        if name == self._name:
            return self._value[start:stop].contiguous()
        return super().rows(name, start, stop)

    def tensor(self, name: str) -> torch.Tensor:
        return self._value if name == self._name else super().tensor(name)


@dataclass(frozen=True)
class Plant:
    """What is changed on the way down."""

    spec: Callable[[DecoderSpec], DecoderSpec] = lambda spec: spec
    weights: Callable[[Source], Source] = lambda weights: weights
    tables: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = lambda tables: tables
    kv_cache: KvCacheRecipe | None = None
    lowering: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    file: Callable[[Path, Lowered], None] = lambda path, lowered: None


def plant(good: Path, folder: Path, fault: Plant) -> Path:
    """Copy a package and give the copy a wrong program."""
    shutil.copytree(good, folder, ignore=shutil.ignore_patterns("runs"))
    manifest = Manifest.read(folder / MANIFEST)
    plan = manifest.plan
    model = open_model(plan.model.source)
    spec = fault.spec(model.spec)
    exported = export_decoder(spec, plan.max_seq_len, plan.prefill_chunk)
    identities = {name: model.weights.identity(name) for name in model.weights.names()}
    recipe = plan.recipe
    if fault.kv_cache is not None:
        recipe = recipe.model_copy(update={"kv_cache": fault.kv_cache})
    with pytest.MonkeyPatch.context() as patch:
        fault.lowering(patch)
        lowering = Lowering(exported, recipe, identities, plan.max_seq_len)
        lowered = lowering.run(runner_metadata(model, plan))
    program = folder / "model.pte"
    program.unlink()
    tables = fault.tables(make_tables(spec, plan.max_seq_len))
    write_program(program, lowered, fault.weights(model.weights), tables, lambda share: None)
    (folder / ".model.journal").unlink()
    model.close()
    fault.file(program, lowered)
    sign(folder, "model.pte")
    return folder


def sign(folder: Path, *names: str) -> None:
    """Write sizes and checksums of changed files into the manifest."""
    manifest = Manifest.read(folder / MANIFEST)
    files = tuple(
        entry.model_copy(
            update={
                "bytes": (folder / entry.path).stat().st_size,
                "sha256": hashlib.sha256((folder / entry.path).read_bytes()).hexdigest(),
            }
        )
        if entry.path in names
        else entry
        for entry in manifest.files
    )
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": files}).to_json())
