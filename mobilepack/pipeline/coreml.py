"""Build for Core ML: write the programs, and record what their own weights compute exactly."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from mobilepack.contract.manifest import (
    BuildPlan,
    FunctionCall,
    Method,
    Recipe,
    StaticForm,
    TensorSpec,
)
from mobilepack.contract.package import MLPACKAGE, MLPACKAGES
from mobilepack.errors import BuildError
from mobilepack.models.encodings import coreml_storage
from mobilepack.models.layer_spec import AttentionSpec
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.coreml_functions import decode_functions, wanted_of
from mobilepack.pipeline.job import Job
from mobilepack.pipeline.lower import Counts, MemoryBytes, MetadataValue, program_facts
from mobilepack.pipeline.package import PROGRAM, ProgramFacts
from mobilepack.pipeline.reference import EXACT, Eager, joined, record_reference
from mobilepack.pipeline.workspace import FULL, disk_full

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from mobilepack.backends.coreml.convert import Compression
    from mobilepack.backends.coreml.package import Written
    from mobilepack.mil.program import Function

_PARTS = ".packages"
_HALF_BYTES = 2

MASK_VALUE = -4e4
"""Half precision ends at 65504 and the Neural Engine turns infinities into NaN (apple/
coreai-models, neural_engine_rules.md)."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What was written.

    Attributes:
        delegates: Programs that a decode step calls.
        operators: In a decode step.
    """

    methods: tuple[Method, ...]
    functions: tuple[Function, ...]
    delegates: int
    operators: int
    form: StaticForm


def build_coreml(job: Job) -> ProgramFacts:
    """Write program and reference into a folder.

    Raises:
        BuildError: coremltools could not convert the model, or the disk has no room.
        MissingError: coremltools is not installed.
    """
    from mobilepack.backends.coreml.weights import PackagedParameters

    model, plan, folder = job.model, job.plan, job.folder
    if plan.lowering == "reference":
        with job.stages.stage("convert"):
            made = _convert(model, plan, folder / MLPACKAGE)
    else:
        with job.stages.stage("write") as on_share:
            made = _write(model, plan, job.metadata, folder, on_share)
    packaged = PackagedParameters(model.weights, made.functions)
    with job.stages.stage("reference") as on_share:
        reference = job.reference(on_share)
        if packaged.compressed:
            same = Eager(job.exported, packaged, job.tables)
            own = record_reference(same, EXACT, job.passages, on_share)
            greedy = tuple(g.model_copy(update={"variant": "quantised"}) for g in own.index.greedy)
            reference = joined(reference, {"quantised": own.rows["fp32"]}, greedy)
        reference.write(folder / "reference")
    return _facts(model, plan, job.metadata, made)


def _write(
    model: LoadedModel,
    plan: BuildPlan,
    metadata: Mapping[str, MetadataValue],
    folder: Path,
    on_share: Callable[[float], None],
) -> _Made:
    """Write the program ourselves while the weights stream by."""
    from mobilepack.backends.coreml.package import write_packages
    from mobilepack.backends.coreml.program_file import write_program_file

    wanted = wanted_of(plan)
    parts = folder / _PARTS
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    try:
        written = write_packages(model.spec, model.weights, wanted, parts, on_share)
        if plan.artefact == "pte":
            program = folder / PROGRAM
            methods = write_program_file(program, parts, written, wanted.opset, metadata)
            shutil.rmtree(parts)
        else:
            methods = written.methods
            _put(parts, folder, written)
    except OSError as err:
        if err.errno in FULL:
            raise disk_full(folder.parent, "the Core ML program", err) from err
        raise
    functions = decode_functions(folder, plan, methods)
    form = _form(model, plan, "positions_first")
    return _Made(methods, functions, len(methods[1].calls), written.operators, form)


def _put(parts: Path, folder: Path, written: Written) -> None:
    """Move packages to where a package of ours has them: one as it is, several in a folder."""
    if len(written.packages) == 1:
        (parts / written.packages[0]).rename(folder / MLPACKAGE)
        parts.rmdir()
    else:
        parts.rename(folder / MLPACKAGES)


def _form(
    model: LoadedModel, plan: BuildPlan, keys: Literal["channels_first", "positions_first"]
) -> StaticForm:
    from mobilepack.models.static import windows_of

    return StaticForm(
        past=plan.max_seq_len,
        prefill_tokens=plan.prefill_chunk,
        mask_value=MASK_VALUE,
        windows=windows_of(model.spec),
        keys=keys,
        states=plan.states,
    )


def _convert(model: LoadedModel, plan: BuildPlan, package: Path) -> _Made:
    """Let coremltools convert the static form: the check that our own writer is held against."""
    from mobilepack.backends.coreml.convert import Conversion, convert
    from mobilepack.mil.mlpackage import open_mlpackage
    from mobilepack.models.spec import parameter_shapes
    from mobilepack.models.static import METHODS

    wanted = Conversion(
        ios=plan.ios or 0,
        compression=cast("Compression", plan.recipe.linear),
        prefill_tokens=plan.prefill_chunk,
        past=plan.max_seq_len,
        max_seq_len=plan.max_seq_len,
        mask_value=MASK_VALUE,
    )
    weights: dict[str, torch.Tensor] = {}
    shared: dict[str, torch.Tensor] = {}
    for name in parameter_shapes(model.spec):
        identity = model.weights.identity(name)
        if identity not in shared:
            shared[identity] = model.weights.tensor(name)
        weights[name] = shared[identity]
    try:
        convert(model.spec, weights, wanted, package)
    except (RuntimeError, ValueError, NotImplementedError, AssertionError) as err:
        raise BuildError(
            "conversion-failed",
            "coremltools could not convert this model",
            why=f"{type(err).__name__}: {str(err).strip().splitlines()[0][:300]}",
            next="leave --lowering out: the fast lowering does not need its conversion",
        ) from err
    program = open_mlpackage(package)
    methods = tuple(_method(name, program.functions[name]) for name in METHODS)
    decode = program.functions["decode"]
    operators = sum(1 for _ in decode.computing())
    return _Made(methods, (decode,), 1, operators, _form(model, plan, "channels_first"))


def _method(name: str, function: Function) -> Method:
    """Return a converted function's tensors; outputs have the names that the cache gives them."""
    from mobilepack.mil.types import TensorType

    kinds = {"fp16": "float16", "fp32": "float32", "int32": "int32"}

    def spec(label: str, kind: object) -> TensorSpec:
        assert isinstance(kind, TensorType)  # noqa: S101 - the program is ours
        return TensorSpec(name=label, dtype=kinds[kind.dtype.label], shape=kind.sizes)

    call = FunctionCall(
        program=MLPACKAGE,
        function=name,
        inputs=tuple(one.name for one in function.inputs),
        outputs=function.block.outputs,
    )
    return Method(
        name=name,
        inputs=tuple(spec(one.name, one.type) for one in function.inputs),
        outputs=tuple(spec(o.name.removeprefix("new_"), o.type) for o in function.outputs),
        calls=(call,),
    )


def _facts(
    model: LoadedModel, plan: BuildPlan, metadata: Mapping[str, MetadataValue], made: _Made
) -> ProgramFacts:
    facts = program_facts(
        metadata,
        Counts(made.delegates, made.operators, {}, weight_cache=False),
        _formats(model, plan.recipe),
        MemoryBytes(_cache_bytes(model, plan), 0),
    )
    placement = facts.placement.model_copy(
        update={
            "delegated_weight_bytes": facts.memory.parameters_bytes,
            "fallback_weight_bytes": 0,
        }
    )
    return replace(facts, placement=placement, methods=made.methods, static=made.form)


def _cache_bytes(model: LoadedModel, plan: BuildPlan) -> int:
    mixers = (cast(AttentionSpec, mixer) for mixer in model.spec.attentions)
    return sum(2 * _HALF_BYTES * mixer.kv_size * plan.max_seq_len for mixer in mixers)


def _formats(model: LoadedModel, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Return numbers and bytes of parameters by how they are stored; a tied head counts once."""
    from mobilepack.models.spec import parameter_shapes

    found: dict[str, tuple[int, int]] = {}
    tied = model.weights.identity("head.weight") == model.weights.identity("embed.weight")
    for name, shape in parameter_shapes(model.spec).items():
        if tied and name == "head.weight":
            continue
        kind, size = coreml_storage(name, shape, recipe.linear, recipe.group_size, tied)
        numbers, before = found.get(kind, (0, 0))
        found[kind] = (numbers + math.prod(shape), before + size)
    return found
