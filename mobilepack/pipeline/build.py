"""Build one package: export, lower, write the weights, record the reference, publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import (
    BuildPlan,
    Manifest,
    MemorySplit,
    OperatorCount,
    Placement,
    WeightFormat,
)
from mobilepack.contract.reference import INDEX
from mobilepack.errors import UsageError
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.lower import MetadataValue, lower_fast, runner_metadata
from mobilepack.pipeline.package import PROGRAM, ProgramFacts, copy_companions, write_manifest
from mobilepack.pipeline.program import write_program
from mobilepack.pipeline.reference import Passage, choose_passages, record_reference
from mobilepack.pipeline.stages import Stages
from mobilepack.pipeline.workspace import open_workspace

if TYPE_CHECKING:
    from mobilepack.backends.xnnpack.lower import Lowered


def build_package(model: LoadedModel, plan: BuildPlan, out: Path, stages: Stages) -> Manifest:
    """Build a package under `out`; the caller holds the lock of its target.

    Raises:
        MobilepackError: A stage failed; nothing half-written stays except what a new build of the
            same plan can go on from.
    """
    tokenizer = Tokenizer.open(model.checkpoint.folder)
    workspace = open_workspace(out, plan.target, content_id(plan))
    try:
        facts = _program(model, plan, workspace.folder, stages)
        with stages.stage("package"):
            copy_companions(model, tokenizer.info(), workspace.folder)
            manifest = write_manifest(
                workspace.folder, model, plan, facts, tokenizer.info(), stages.costs
            )
            workspace.publish()
    except Exception:
        workspace.discard()
        raise
    return manifest


def _program(model: LoadedModel, plan: BuildPlan, folder: Path, stages: Stages) -> ProgramFacts:
    with stages.stage("export"):
        import torch

        from mobilepack.models.rope import rope_tables

        torch.set_num_threads(1)  # streaming is bound by memory: more threads only cost CPU
        exported = export_decoder(model.spec, plan.max_seq_len, plan.prefill_chunk)
        cos, sin = rope_tables(model.spec.rope, plan.max_seq_len)
    rope = {"cos": cos, "sin": sin}
    metadata = runner_metadata(model, plan)
    with stages.stage("lower"):
        lowered = lower_fast(exported, model, plan, metadata)
    with stages.stage("weights") as on_share:
        write_program(folder / PROGRAM, lowered, model.weights, rope, on_share)
    if not (folder / "reference" / INDEX).exists():
        with stages.stage("reference") as on_share:
            passages = reference_passages(model, plan)
            record_reference(
                exported, model.weights, rope, plan.recipe, passages, on_share
            ).write(folder / "reference")
    return program_facts(lowered, metadata)


def reference_passages(model: LoadedModel, plan: BuildPlan) -> tuple[Passage, ...]:
    """Return the token ids that a model's reference is recorded for.

    Raises:
        UsageError: The tokenizer makes ids that the model does not have.
    """
    tokenizer = Tokenizer.open(model.checkpoint.folder)
    ids = _text_ids(tokenizer, plan.max_seq_len + 64)
    if max(ids) >= model.spec.vocab_size:
        raise UsageError(
            "tokenizer-mismatch",
            f"the tokenizer in {model.checkpoint.folder} does not belong to this model",
            why=f"it made token id {max(ids)}, but config.json says vocab_size = "
            f"{model.spec.vocab_size}",
            next="put the tokenizer that came with the weights into the folder",
        )
    return choose_passages(
        ids, model.spec.vocab_size, model.weights.parameters(), plan.max_seq_len
    )


def _text_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    from mobilepack.models.zoo.corpus import held_out_text

    texts = 8
    while True:
        ids = tokenizer.encode("\n".join(held_out_text(texts)))
        if len(ids) >= count:
            return ids[:count]
        texts *= 2


def program_facts(lowered: Lowered, metadata: dict[str, MetadataValue]) -> ProgramFacts:
    """Return what a manifest says about a lowered program."""
    rows = lowered.tally.rows
    embedding = sum(size for label, (_, size) in rows.items() if label.startswith("embedding"))
    calls = lowered.kernel_calls
    return ProgramFacts(
        metadata=metadata,
        placement=Placement(
            delegates=lowered.delegates,
            delegated_operators=lowered.operators,
            fallback_operators=sum(calls.values()),
            delegated_weight_bytes=sum(size for _, size in rows.values()) - embedding,
            fallback_weight_bytes=embedding,
            fallback=tuple(
                OperatorCount(operator=name, count=count) for name, count in sorted(calls.items())
            ),
        ),
        weights=tuple(
            WeightFormat(format=label, parameters=parameters, bytes=size)
            for label, (parameters, size) in rows.items()
        ),
        memory=MemorySplit(
            parameters_bytes=sum(size for _, size in rows.values()),
            kv_cache_bytes=lowered.state_bytes,
            activations_bytes=lowered.activation_bytes + lowered.workspace_bytes,
        ),
    )

