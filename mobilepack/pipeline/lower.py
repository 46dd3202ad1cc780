"""Lower the exported decoder: the fast path, or ExecuTorch's own where a graph is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mobilepack.contract.manifest import BuildPlan
from mobilepack.models.weights import LoadedModel

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from mobilepack.backends.xnnpack.lower import Lowered

MetadataValue = int | bool | tuple[int, ...]


def runner_metadata(model: LoadedModel, plan: BuildPlan) -> dict[str, MetadataValue]:
    """Return what ExecuTorch's LLM runners ask a program for (extension/llm/runner, 1.5.1).

    `get_max_seq_len` is the longest single call there, `get_max_context_len` the cache.
    """
    spec = model.spec
    bos = {} if spec.bos_id is None else {"get_bos_id": spec.bos_id}
    return bos | {
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
