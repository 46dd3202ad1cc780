"""Build for QNN: hand the weights to a child that lowers, take its program and its reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mobilepack.contract.manifest import BuildPlan, Recipe
from mobilepack.contract.npu import Npu, NpuContext, NpuGraph
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.calibration_rows import text_rows
from mobilepack.pipeline.job import Job
from mobilepack.pipeline.lower import Counts, MemoryBytes, MetadataValue, program_facts
from mobilepack.pipeline.package import PROGRAM, ProgramFacts
from mobilepack.pipeline.reference import joined
from mobilepack.soc import load_soc

if TYPE_CHECKING:
    from mobilepack.backends.qnn.request import LowerRequest, LowerResult, Precision

LOG = "qnn.log"
PHONE_PROGRAM = "model.phone.pte"
"""The program whose methods share their weights."""

CONTEXT_BYTES = 700_000_000
"""Constants of a context at most, even where the SoC takes more: the compiler's peak is some 15
times as much (Qwen3-0.6B, 686 MB: 10.7 GB), and a larger model must fit into 16 GB too (measured:
Llama-3.2-1B 14.0 GB, where one context was stopped at 17 GB and growing)."""

CALIBRATION_ROWS = 8
"""Rows of at most 512 tokens; activations' ranges hardly move after two (embedded model: the
perplexity ratio is 0.9967 with two rows of 256)."""

_WEIGHTS = ".weights.safetensors"


def build_qnn(job: Job) -> ProgramFacts:
    """Write program and reference into a folder.

    Raises:
        BuildError: The child failed.
        MissingError: Qualcomm's libraries are not here.
    """
    from mobilepack.backends.qnn.lowering import run_lowering
    from mobilepack.backends.qnn.probe import usable_sdk

    model, plan, folder, stages = job.model, job.plan, job.folder, job.stages
    sdk = usable_sdk(job.qnn_sdk)
    request = _request(job)
    log = folder.parent / f".{plan.target}.{LOG}"
    log.unlink(missing_ok=True)
    with stages.stage("hand over"):
        write_weights(model, request.shared, request.weights)
    try:
        with stages.stage("lower") as on_share:
            made = run_lowering(request, sdk, log, lambda stage, share: on_share(share))
    finally:
        request.weights.unlink(missing_ok=True)
    npu = _npu(made, log)
    log.replace(folder / LOG)
    with stages.stage("reference") as on_share:
        reference = job.reference(on_share)
        if made.rows:
            reference = joined(reference, made.rows, made.greedy)
        reference.write(folder / "reference")
    return replace(_facts(model, plan, job.metadata, made, sdk.version), npu=npu)


def _request(job: Job) -> LowerRequest:
    model, plan = job.model, job.plan
    quantised = plan.recipe.linear != "fp16"
    text, length = job.calibration, plan.max_seq_len
    rows = text_rows(model.checkpoint.folder, text, length) if quantised else ()
    phone = job.folder / PHONE_PROGRAM if load_soc(plan.soc_model or "").weight_sharing else None
    return replace(
        request_of(model, plan, job.metadata, job.folder),
        rows=rows[:CALIBRATION_ROWS],
        passages=tuple((p.name, p.token_ids) for p in job.passages),
        lowering=plan.lowering,
        phone_out=phone,
    )


def request_of(
    model: LoadedModel, plan: BuildPlan, metadata: Mapping[str, MetadataValue], folder: Path
) -> LowerRequest:
    """Return what a lowering has to know of any program of a plan.

    Args:
        model: Its weights are handed over by `write_weights`.
        plan: For QNN.
        metadata: Constant methods.
        folder: Where weights and program go.
    """
    from mobilepack.backends.qnn.request import LowerRequest

    soc = load_soc(plan.soc_model or "")
    return LowerRequest(
        spec=model.spec,
        weights=folder / _WEIGHTS,
        shared=shared_parameters(model),
        precision=cast("Precision", plan.recipe.linear),
        max_seq_len=plan.max_seq_len,
        prefill_tokens=plan.prefill_chunk,
        soc_model=soc.model,
        heads="together",
        rows=(),
        passages=(),
        metadata=dict(metadata),
        out=folder / PROGRAM,
        block=plan.recipe.group_size,
        context_limit_bytes=min(CONTEXT_BYTES, int(soc.context_limit_gb * 1e9)),
    )


def shared_parameters(model: LoadedModel) -> dict[str, str]:
    """Return the parameters that are another's tensor, each with the first that has it."""
    from mobilepack.models.spec import parameter_shapes

    owners: dict[str, str] = {}
    names = parameter_shapes(model.spec)
    firsts = {name: owners.setdefault(model.weights.identity(name), name) for name in names}
    return {name: first for name, first in firsts.items() if first != name}


def write_weights(model: LoadedModel, shared: Mapping[str, str], path: Path) -> None:
    """Write every parameter once, in float32.

    Args:
        shared: See `shared_parameters`; these are left out.
    """
    from safetensors.torch import save_file

    from mobilepack.models.spec import parameter_shapes

    names = [name for name in parameter_shapes(model.spec) if name not in shared]
    save_file({name: model.weights.tensor(name) for name in names}, path)


def _npu(made: LowerResult, log: Path) -> Npu | None:
    """Return what is known of the contexts; the compiler's log tells their traffic in order."""
    from mobilepack.backends.qnn.compile_log import traffic

    if not made.contexts:
        return None
    compiled = [
        (context, method, operators)
        for context in made.contexts
        for method, operators in zip(context.methods, context.operators, strict=True)
    ]
    found = traffic(log.read_text(errors="replace"))
    moved = found if len(found) == len(compiled) else [None] * len(compiled)
    programs = {context.program for context in made.contexts}
    return Npu(
        emulator_program=PROGRAM,
        phone_program=PHONE_PROGRAM if PHONE_PROGRAM in programs else None,
        contexts=tuple(
            NpuContext(
                program=c.program, shard=c.shard, methods=c.methods, bytes=c.bytes, sha256=c.sha256
            )
            for c in made.contexts
        ),
        graphs=tuple(
            NpuGraph(
                program=context.program,
                shard=context.shard,
                method=method,
                operators=operators,
                read_bytes=None if moves is None else moves.read,
                write_bytes=None if moves is None else moves.write,
                spill_bytes=None if moves is None else moves.spill,
                fill_bytes=None if moves is None else moves.fill,
            )
            for (context, method, operators), moves in zip(compiled, moved, strict=True)
        ),
        graphs_sha256=made.graphs_sha256,
        weights_sha256=made.weights_sha256,
    )


def _facts(
    model: LoadedModel,
    plan: BuildPlan,
    metadata: Mapping[str, MetadataValue],
    made: LowerResult,
    version: str,
) -> ProgramFacts:
    kinds = {"fp32": 4, "float32": 4, "uint8": 1, "uint16": 2, "int32": 4}
    decode = next(method for method in made.methods if method.name == "decode")
    caches = sum(
        math.prod(t.shape) * kinds[t.dtype] for t in decode.inputs if t.name[:2] in ("k_", "v_")
    )
    facts = program_facts(
        metadata,
        Counts(made.delegates, made.operators, made.fallback, weight_cache=False),
        weight_formats(model, plan.recipe),
        MemoryBytes(caches, 0),
    )
    placement = facts.placement.model_copy(
        update={
            "delegated_weight_bytes": facts.memory.parameters_bytes,
            "fallback_weight_bytes": 0,
        }
    )
    return replace(
        facts,
        placement=placement,
        methods=made.methods,
        static=made.form,
        runtime_version=version,
        ranges=made.ranges,
    )


def weight_formats(model: LoadedModel, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Return numbers and bytes of the parameters by how they are stored."""
    from mobilepack.models.spec import parameter_shapes

    found: dict[str, tuple[int, int]] = {}
    for name, shape in parameter_shapes(model.spec).items():
        label, bits, scales = stored_as(name, shape, recipe)
        numbers, size = found.get(label, (0, 0))
        count = math.prod(shape)
        found[label] = (numbers + count, size + count * bits // 8 + 4 * scales)
    return found


def stored_as(name: str, shape: tuple[int, ...], recipe: Recipe) -> tuple[str, int, int]:
    """Return a parameter's format, the bits of its numbers, and how many scales it has."""
    if recipe.linear == "fp16":
        return "fp16", 16, 0
    if name in ("embed.weight", "positions.weight") or len(shape) == 1:
        return "16w", 16, 1
    if name == "head.weight" or recipe.linear == "16a8w":
        return "16a8w", 8, shape[0]
    in_blocks = recipe.group_size and shape[1] % recipe.group_size == 0
    blocks = math.prod(shape) // recipe.group_size if in_blocks else 0
    return "16a4w", 4, shape[0] + blocks // 4  # a block's scale has a byte
