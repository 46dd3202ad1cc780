"""Lower the exported decoder: the fast path, or ExecuTorch's own where a graph is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.manifest import (
    RECURRENT,
    BuildPlan,
    MemorySplit,
    OperatorCount,
    Placement,
    WeightFormat,
)
from mobilepack.errors import BuildError
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.package import ProgramFacts
from mobilepack.pipeline.plain import check_reference

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from mobilepack.backends.xnnpack.lowered import Lowered

MetadataValue = int | bool | tuple[int, ...]


def runner_metadata(model: LoadedModel, plan: BuildPlan) -> dict[str, MetadataValue]:
    """Return what ExecuTorch's LLM runners ask a program for (extension/llm/runner, 1.5.1).

    `get_max_seq_len` is the longest single call there, `get_max_context_len` the cache.
    """
    spec = model.spec
    metadata: dict[str, MetadataValue] = {} if spec.bos_id is None else {"get_bos_id": spec.bos_id}
    if spec.is_recurrent:
        metadata[RECURRENT] = True
    return metadata | {
        "get_eos_ids": spec.eos_ids,
        "get_max_seq_len": plan.prefill_chunk,
        "get_max_context_len": plan.max_seq_len,
        "get_vocab_size": spec.vocab_size,
        "get_n_layers": len(spec.layers),
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }


def lower_fast(
    exported: ExportedProgram,
    model: LoadedModel,
    plan: BuildPlan,
    metadata: Mapping[str, MetadataValue],
) -> Lowered:
    """Lower with our own walk.

    Raises:
        UnknownGraphError: The graph holds something the walk has no rule for.
    """
    from mobilepack.backends.xnnpack.lower import Lowering
    from mobilepack.models.spec import parameter_shapes

    identities = {name: model.weights.identity(name) for name in parameter_shapes(model.spec)}
    return Lowering(exported, plan.recipe, identities, plan.max_seq_len).run(metadata)


def lower_reference(
    model: LoadedModel, plan: BuildPlan, metadata: Mapping[str, MetadataValue], path: Path
) -> ProgramFacts:
    """Lower with ExecuTorch's own passes; all weights are in memory in float32 at once.

    Raises:
        BuildError: ExecuTorch could not lower the model.
        UsageError: The model has blocks that only the fast lowering knows.
    """
    check_reference(model.spec)
    from mobilepack.backends.xnnpack.upstream import lower_upstream
    from mobilepack.models.spec import parameter_shapes

    tensors: dict[str, torch.Tensor] = {}
    shared: dict[str, torch.Tensor] = {}
    for name in parameter_shapes(model.spec):
        identity = model.weights.identity(name)
        if identity not in shared:
            shared[identity] = model.weights.tensor(name)
        tensors[name] = shared[identity]
    lengths = (plan.max_seq_len, plan.prefill_chunk)
    try:
        made = lower_upstream(
            model.spec, tensors, plan.recipe, lengths, metadata, path, model.weights
        )
    except (RuntimeError, ValueError, AssertionError) as err:
        raise BuildError(
            "lowering-failed",
            "ExecuTorch's own lowering could not lower this model",
            why=f"{type(err).__name__}: {str(err).strip().splitlines()[0][:300]}",
            next="use --lowering fast (the default), or report the model",
        ) from err
    return program_facts(
        metadata,
        Counts(made.delegates, made.operators, made.kernel_calls, weight_cache=False),
        made.tally.rows,
        MemoryBytes(made.state_bytes, made.activation_bytes),
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Delegates, the operators in them, and kernel calls outside by name.

    Attributes:
        weight_cache: As in `Placement`.
    """

    delegates: int
    operators: int
    kernel_calls: Mapping[str, int]
    weight_cache: bool


@dataclass(frozen=True, slots=True)
class MemoryBytes:
    """Bytes of the KV cache and of intermediate tensors."""

    states: int
    activations: int


def facts_of(lowered: Lowered, metadata: Mapping[str, MetadataValue]) -> ProgramFacts:
    """Return what a manifest says about a program of the fast path."""
    return program_facts(
        metadata,
        Counts(lowered.delegates, lowered.operators, lowered.kernel_calls, weight_cache=True),
        lowered.tally.rows,
        MemoryBytes(lowered.state_bytes, lowered.activation_bytes + lowered.workspace_bytes),
    )


def program_facts(
    metadata: Mapping[str, MetadataValue],
    counts: Counts,
    formats: Mapping[str, tuple[int, int]],
    memory: MemoryBytes,
) -> ProgramFacts:
    """Return what a manifest says about a program; `formats` maps label to (numbers, bytes)."""
    total = sum(size for _, size in formats.values())
    embedding = sum(size for label, (_, size) in formats.items() if label.startswith("embedding"))
    return ProgramFacts(
        metadata=metadata,
        placement=Placement(
            delegates=counts.delegates,
            delegated_operators=counts.operators,
            fallback_operators=sum(counts.kernel_calls.values()),
            delegated_weight_bytes=total - embedding,
            fallback_weight_bytes=embedding,
            fallback=tuple(
                OperatorCount(operator=name, count=count)
                for name, count in sorted(counts.kernel_calls.items())
            ),
            weight_cache=counts.weight_cache,
        ),
        weights=tuple(
            WeightFormat(format=label, parameters=parameters, bytes=size)
            for label, (parameters, size) in formats.items()
        ),
        memory=MemorySplit(
            parameters_bytes=total,
            kv_cache_bytes=memory.states,
            activations_bytes=memory.activations,
        ),
    )
