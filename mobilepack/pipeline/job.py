"""What a build has in hand once its model is exported: what every backend's builder is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.manifest import BuildPlan, Recipe
from mobilepack.contract.reference import Reference
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.known_reference import find, keep, key_of
from mobilepack.pipeline.lower import MetadataValue
from mobilepack.pipeline.reference import EXACT, Eager, Passage, record_reference
from mobilepack.pipeline.stages import Stages

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


@dataclass(frozen=True, slots=True)
class Job:
    """A build between its export and its package.

    Attributes:
        exported: The dynamic form, weightless; eager evaluation walks it.
        tables: What depends on positions only.
        passages: What the reference is recorded for.
        metadata: Of the official runners.
        folder: Being written; published when all of it is there.
        calibration: File of text that calibration looks at; None for the embedded corpus.
        qnn_sdk: A QAIRT SDK of the user's own.
    """

    model: LoadedModel
    plan: BuildPlan
    exported: ExportedProgram
    tables: dict[str, torch.Tensor]
    passages: tuple[Passage, ...]
    metadata: Mapping[str, MetadataValue]
    folder: Path
    stages: Stages
    calibration: Path | None = None
    qnn_sdk: Path | None = None

    def reference(self, on_share: Callable[[float], None], recipe: Recipe = EXACT) -> Reference:
        """Return what eager fp32 says and what it says with a recipe's roundings.

        Eager fp32 is taken from an earlier build of the same model, or kept for a later one.
        """
        plan = self.plan
        ids = [passage.token_ids for passage in self.passages]
        key = key_of(plan.model, plan.max_seq_len, ids, plan.compression)
        eager = Eager(self.exported, self.model.weights, self.tables)
        reference = record_reference(eager, recipe, self.passages, on_share, find(key))
        keep(key, reference)
        return reference
