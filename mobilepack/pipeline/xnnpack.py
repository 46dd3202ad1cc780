"""Build for XNNPACK: lower the graph, stream the weights into the program, record the reference."""

from __future__ import annotations

from mobilepack.contract.reference import INDEX
from mobilepack.errors import BuildError
from mobilepack.pipeline.job import Job
from mobilepack.pipeline.lower import facts_of, lower_fast, lower_reference
from mobilepack.pipeline.package import PROGRAM, ProgramFacts
from mobilepack.pipeline.program import write_program


def build_xnnpack(job: Job) -> ProgramFacts:
    """Write program and reference into a folder; a reference that lies there already is kept.

    Raises:
        BuildError: The graph cannot be lowered to this recipe, or the disk has no room.
    """
    facts = _lowered(job)
    folder = job.folder / "reference"
    if not (folder / INDEX).exists():
        with job.stages.stage("reference") as on_share:
            job.reference(on_share, job.plan.recipe).write(folder)
    return facts


def _lowered(job: Job) -> ProgramFacts:
    from mobilepack.backends.xnnpack.operands import UnknownGraphError

    model, plan, stages = job.model, job.plan, job.stages
    path = job.folder / PROGRAM
    if plan.lowering == "reference":
        with stages.stage("lower (reference)"):
            return lower_reference(model, plan, job.metadata, path)
    try:
        with stages.stage("lower"):
            lowered = lower_fast(job.exported, model, plan, job.metadata)
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
            return lower_reference(model, plan, job.metadata, path)
    with stages.stage("weights") as on_share:
        write_program(path, lowered, model.weights, job.tables, on_share)
    return facts_of(lowered, job.metadata)
