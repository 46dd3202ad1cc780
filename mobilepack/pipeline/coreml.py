"""Build for Core ML: convert the static form, and record what its own weights compute exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mobilepack.contract.manifest import BuildPlan, Method, Recipe, StaticForm, TensorSpec
from mobilepack.contract.package import MLPACKAGE
from mobilepack.contract.reference import Reference, Rows, Variant
from mobilepack.errors import BuildError
from mobilepack.models.encodings import coreml_storage
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.known_reference import find, keep, key_of
from mobilepack.pipeline.lower import Counts, MemoryBytes, MetadataValue, program_facts
from mobilepack.pipeline.package import ProgramFacts
from mobilepack.pipeline.reference import Eager, Passage, record_reference
from mobilepack.pipeline.stages import Stages

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from mobilepack.backends.coreml.convert import Compression
    from mobilepack.mil.program import Function, Program

_EXACT = Recipe(linear="fp32", group_size=0, embedding="fp32", kv_cache="fp32")


def build_coreml(  # noqa: PLR0913  what a build has in hand
    model: LoadedModel,
    plan: BuildPlan,
    exported: ExportedProgram,
    tables: dict[str, torch.Tensor],
    passages: tuple[Passage, ...],
    metadata: Mapping[str, MetadataValue],
    folder: Path,
    stages: Stages,
) -> ProgramFacts:
    """Write program and reference into a folder.

    Raises:
        BuildError: coremltools could not convert the model.
        MissingError: coremltools is not installed.
    """
    from mobilepack.backends.coreml.weights import PackagedParameters
    from mobilepack.mil.mlpackage import open_mlpackage

    package = folder / MLPACKAGE
    with stages.stage("convert"):
        _convert(model, plan, package)
    program = open_mlpackage(package)
    packaged = PackagedParameters(model.weights, package)
    with stages.stage("reference") as on_share:
        key = key_of(
            plan.model, plan.max_seq_len, [p.token_ids for p in passages], plan.compression
        )
        eager = Eager(exported, model.weights, tables)
        reference = record_reference(eager, _EXACT, passages, on_share, find(key))
        keep(key, reference)
        if packaged.compressed:
            same = Eager(exported, packaged, tables)
            made = record_reference(same, _EXACT, passages, on_share)
            reference = _joined(reference, made)
        reference.write(folder / "reference")
    return _facts(model, plan, metadata, program)


def _convert(model: LoadedModel, plan: BuildPlan, package: Path) -> None:
    from mobilepack.backends.coreml.convert import Conversion, convert
    from mobilepack.models.spec import parameter_shapes

    wanted = Conversion(
        ios=plan.ios or 18,
        compression=cast("Compression", plan.recipe.linear),
        prefill_tokens=plan.prefill_chunk,
        past=plan.max_seq_len,
        max_seq_len=plan.max_seq_len,
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
            next="report the model; --target xnnpack builds it for the CPU",
        ) from err


def _joined(reference: Reference, made: Reference) -> Reference:
    """Return the fp32 reference with what the package's own weights compute."""
    rows: dict[Variant, Rows] = {**reference.rows, "quantised": made.rows["fp32"]}
    greedy = tuple(one.model_copy(update={"variant": "quantised"}) for one in made.index.greedy)
    index = reference.index.model_copy(update={"variants": tuple(rows), "greedy": greedy})
    return Reference(index, rows)


def _facts(
    model: LoadedModel,
    plan: BuildPlan,
    metadata: Mapping[str, MetadataValue],
    program: Program,
) -> ProgramFacts:
    from mobilepack.backends.coreml.convert import MASK_VALUE
    from mobilepack.models.static import METHODS, windows_of

    methods = tuple(_method(name, program.functions[name]) for name in METHODS)
    decode = methods[1]
    operators = sum(not op.is_constant for op in program.functions["decode"].block.operations)
    caches = sum(2 * math.prod(t.shape) for t in decode.inputs if t.name[:2] in ("k_", "v_"))
    facts = program_facts(
        metadata,
        Counts(1, operators, {}, weight_cache=False),
        _formats(model, plan.recipe),
        MemoryBytes(caches, 0),
    )
    placement = facts.placement.model_copy(
        update={
            "delegated_weight_bytes": facts.memory.parameters_bytes,
            "fallback_weight_bytes": 0,
        }
    )
    form = StaticForm(
        past=plan.max_seq_len,
        prefill_tokens=plan.prefill_chunk,
        mask_value=MASK_VALUE,
        windows=windows_of(model.spec),
    )
    return replace(facts, placement=placement, methods=methods, static=form)


def _method(name: str, function: Function) -> Method:
    """Return a function's tensors; outputs have the names that the cache gives them."""
    from mobilepack.mil.types import TensorType

    kinds = {"fp16": "float16", "fp32": "float32", "int32": "int32"}

    def spec(label: str, kind: object) -> TensorSpec:
        assert isinstance(kind, TensorType)  # noqa: S101 - the program is ours
        return TensorSpec(name=label, dtype=kinds[kind.dtype.label], shape=kind.sizes)

    made = {output.name: output.type for op in function.block.operations for output in op.outputs}
    return Method(
        name=name,
        inputs=tuple(spec(one.name, one.type) for one in function.inputs),
        outputs=tuple(
            spec(label.removeprefix("new_"), made[label]) for label in function.block.outputs
        ),
    )


def _formats(model: LoadedModel, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Return numbers and bytes of the parameters by how they are stored."""
    from mobilepack.models.spec import parameter_shapes

    found: dict[str, tuple[int, int]] = {}
    for name, shape in parameter_shapes(model.spec).items():
        kind, size = coreml_storage(name, shape, recipe.linear)
        numbers, before = found.get(kind, (0, 0))
        found[kind] = (numbers + math.prod(shape), before + size)
    return found
