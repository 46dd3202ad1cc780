"""Build one package: export, lower, write the weights, record the reference, publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.base import content_id
from mobilepack.contract.compression import CompressionReport
from mobilepack.contract.manifest import BuildPlan, Manifest
from mobilepack.contract.reference import INDEX
from mobilepack.errors import BuildError, MissingError, UsageError
from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.tokenizer import Tokenizer, backend_file
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.compress import Compressed, chosen_numbers, pruned
from mobilepack.pipeline.compression_options import NOTHING, CompressionChoices
from mobilepack.pipeline.coreml import build_coreml
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.known_reference import find, keep, key_of
from mobilepack.pipeline.lower import (
    MetadataValue,
    facts_of,
    lower_fast,
    lower_reference,
    runner_metadata,
)
from mobilepack.pipeline.onnx import build_onnx
from mobilepack.pipeline.package import PROGRAM, ProgramFacts, copy_companions, write_manifest
from mobilepack.pipeline.program import write_program
from mobilepack.pipeline.qnn import QnnChoices, build_qnn, check_model, qnn_passages
from mobilepack.pipeline.reference import Eager, Passage, choose_passages, record_reference
from mobilepack.pipeline.stages import Stages
from mobilepack.pipeline.workspace import working

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def build_package(
    model: LoadedModel,
    plan: BuildPlan,
    out: Path,
    stages: Stages,
    choices: CompressionChoices = NOTHING,
    qnn_sdk: Path | None = None,
) -> Manifest:
    """Build a package under `out`; the caller holds the lock of its target.

    Args:
        model: The checkpoint.
        plan: What to build.
        out: Folder of packages.
        stages: Timed.
        choices: Files that the plan's compression was made from.
        qnn_sdk: A QAIRT SDK of the user's own.

    Raises:
        MobilepackError: A stage failed; nothing half-written stays except what a new build of the
            same plan can go on from.
    """
    check_vocabulary(model.checkpoint)
    with pruned(model, plan, choices, stages) as compressed:
        model = compressed.model
        tokenizer = Tokenizer.open(model.checkpoint.folder)
        passages = reference_passages(model, plan)  # first, for it may refuse the tokenizer
        if plan.backend != "xnnpack":
            check_model(model, plan.target)
        if plan.backend in ("qnn", "coreml"):
            passages = qnn_passages(passages, plan.max_seq_len)
        with working(out, plan.target, content_id(plan)) as workspace:
            qnn = QnnChoices(qnn_sdk, choices.text)
            facts, report = _program(compressed, plan, passages, workspace.folder, stages, qnn)
            with stages.stage("package"):
                copy_companions(model, tokenizer, workspace.folder)
                manifest = write_manifest(
                    workspace.folder, model, plan, facts, tokenizer.info(), stages.costs, report
                )
                workspace.publish()
    return manifest


def check_vocabulary(checkpoint: Checkpoint) -> None:
    """Refuse a GGUF file that was converted without its vocabulary.

    Raises:
        MissingError: It has none.
    """
    if checkpoint.gguf and backend_file(checkpoint.folder) is None:
        raise MissingError(
            "no-tokenizer",
            f"{checkpoint.place} has no tokenizer",
            why="it was converted without its vocabulary",
            next="convert the model again with llama.cpp, from a folder with its tokenizer",
        )


def _program(
    compressed: Compressed,
    plan: BuildPlan,
    passages: tuple[Passage, ...],
    folder: Path,
    stages: Stages,
    qnn: QnnChoices,
) -> tuple[ProgramFacts, CompressionReport | None]:
    model = compressed.model
    with stages.stage("export"):
        import torch

        from mobilepack.models.tables import make_tables

        torch.set_num_threads(1)  # streaming is bound by memory: more threads only cost CPU
        exported = export_decoder(model.spec, plan.max_seq_len, plan.prefill_chunk)
        tables = make_tables(model.spec, plan.max_seq_len)
    compressed = chosen_numbers(compressed, plan, exported, tables, folder, stages)
    model = compressed.model
    metadata = runner_metadata(model, plan)
    if plan.backend == "qnn":
        facts = build_qnn(model, plan, qnn, exported, tables, passages, metadata, folder, stages)
        return facts, compressed.report
    if plan.backend == "onnx":
        facts = build_onnx(model, plan, exported, tables, passages, metadata, folder, stages)
        return facts, compressed.report
    if plan.backend == "coreml":
        facts = build_coreml(model, plan, exported, tables, passages, metadata, folder, stages)
        return facts, compressed.report
    facts = _lowered(model, plan, exported, tables, metadata, folder / PROGRAM, stages)
    if not (folder / "reference" / INDEX).exists():
        ids = [passage.token_ids for passage in passages]
        key = key_of(plan.model, plan.max_seq_len, ids, plan.compression)
        with stages.stage("reference") as on_share:
            eager = Eager(exported, model.weights, tables)
            reference = record_reference(eager, plan.recipe, passages, on_share, find(key))
            reference.write(folder / "reference")
            keep(key, reference)
    return facts, compressed.report


def _lowered(  # noqa: PLR0913  what the two ways down need between them
    model: LoadedModel,
    plan: BuildPlan,
    exported: ExportedProgram,
    tables: dict[str, torch.Tensor],
    metadata: dict[str, MetadataValue],
    path: Path,
    stages: Stages,
) -> ProgramFacts:
    if plan.lowering == "reference":
        with stages.stage("lower (reference)"):
            return lower_reference(model, plan, metadata, path)
    from mobilepack.backends.xnnpack.operands import UnknownGraphError

    try:
        with stages.stage("lower"):
            lowered = lower_fast(exported, model, plan, metadata)
    except UnknownGraphError as err:
        if plan.recipe.kv_cache != "fp32":
            raise BuildError(
                "unknown-graph",
                f"cannot lower this model with a KV cache in {plan.recipe.kv_cache}",
                why=f"the fast lowering does not know its graph ({err}), and ExecuTorch's own "
                "keeps the cache in fp32",
                next="build with --kv-cache fp32",
            ) from err
        with stages.stage(f"lower (reference: {err})"):
            return lower_reference(model, plan, metadata, path)
    with stages.stage("weights") as on_share:
        write_program(path, lowered, model.weights, tables, on_share)
    return facts_of(lowered, metadata)


def reference_passages(model: LoadedModel, plan: BuildPlan) -> tuple[Passage, ...]:
    """Return the token ids that a model's reference is recorded for.

    Raises:
        UsageError: The tokenizer makes ids that the model does not have.
    """
    tokenizer = Tokenizer.open(model.checkpoint.folder)
    ids = _text_ids(tokenizer, plan.max_seq_len + 64) if tokenizer.rows else []
    if not ids or tokenizer.rows > model.spec.vocab_size:
        made = f"makes token id {tokenizer.rows - 1}" if ids else "made no ids of English text"
        raise UsageError(
            "tokenizer-mismatch",
            f"the tokenizer in {model.checkpoint.place} does not belong to this model",
            why=f"it {made}, but config.json says vocab_size = {model.spec.vocab_size}",
            next="put the tokenizer that came with the weights into the folder",
        )
    return choose_passages(ids, model.spec.vocab_size, model.weights.parameters(), plan.max_seq_len)


def _text_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    from mobilepack.models.zoo.corpus import held_out_text

    texts = 8
    while True:
        ids = tokenizer.encode("\n".join(held_out_text(texts)))
        if len(ids) >= count or not ids:
            return ids[:count]
        texts *= 2
