"""Build one package: export, lower, write the weights, record the reference, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mobilepack.contract.base import content_id
from mobilepack.contract.compression import CompressionReport
from mobilepack.contract.manifest import BuildPlan, Manifest
from mobilepack.errors import MissingError, UsageError
from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.tokenizer import Tokenizer, backend_file
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.compress import Compressed, chosen_numbers, pruned
from mobilepack.pipeline.compression_options import NOTHING, CompressionChoices
from mobilepack.pipeline.coreml import build_coreml
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.job import Job
from mobilepack.pipeline.lower import runner_metadata
from mobilepack.pipeline.onnx import build_onnx
from mobilepack.pipeline.package import ProgramFacts, copy_companions, write_manifest
from mobilepack.pipeline.plain import check_static
from mobilepack.pipeline.qnn import build_qnn
from mobilepack.pipeline.reference import Passage, choose_passages
from mobilepack.pipeline.stages import Stages
from mobilepack.pipeline.static_form import static_passages
from mobilepack.pipeline.workspace import working
from mobilepack.pipeline.xnnpack import build_xnnpack

BUILDERS: Mapping[str, Callable[[Job], ProgramFacts]] = {
    "coreml": build_coreml,
    "onnx": build_onnx,
    "qnn": build_qnn,
    "xnnpack": build_xnnpack,
}
"""What writes program and reference, by backend."""


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
            check_static(model.spec, plan.target)
        if plan.backend in ("qnn", "coreml"):
            passages = static_passages(passages, plan.max_seq_len)
        with working(out, plan.target, content_id(plan)) as workspace:
            files = (choices.text, qnn_sdk)
            facts, report = _program(compressed, plan, passages, workspace.folder, stages, files)
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
    files: tuple[Path | None, Path | None],
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
    text, sdk = files
    job = Job(model, plan, exported, tables, passages, metadata, folder, stages, text, sdk)
    return BUILDERS[plan.backend](job), compressed.report


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
