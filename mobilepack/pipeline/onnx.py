"""Build for ONNX Runtime: export the growing form with torch.onnx, and record eager fp32."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilepack.contract.base import write_atomically
from mobilepack.contract.manifest import BuildPlan, Method, TensorSpec
from mobilepack.contract.package import ONNX
from mobilepack.errors import BuildError, MissingError
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.job import Job
from mobilepack.pipeline.lower import Counts, MemoryBytes, MetadataValue, program_facts
from mobilepack.pipeline.package import ProgramFacts

if TYPE_CHECKING:
    import torch

GENAI_CONFIG = "genai_config.json"


def build_onnx(job: Job) -> ProgramFacts:
    """Write program, weights, ONNX Runtime GenAI's configuration and the reference into a folder.

    Raises:
        BuildError: torch.onnx could not export the model.
        MissingError: onnx or onnxscript is not installed.
    """
    model, plan, folder = job.model, job.plan, job.folder
    with job.stages.stage("convert") as on_share:
        operators = _exported(model, plan, job.tables, folder / ONNX, on_share)
        configured = json.dumps(genai_config(model.spec, plan), indent=2) + "\n"
        write_atomically(folder / GENAI_CONFIG, configured)
    with job.stages.stage("reference") as on_share:
        job.reference(on_share, plan.recipe).write(folder / "reference")
    return _facts(model, plan, job.metadata, operators)


def _exported(
    model: LoadedModel,
    plan: BuildPlan,
    tables: Mapping[str, torch.Tensor],
    path: Path,
    on_share: Any,
) -> int:
    lengths = (plan.max_seq_len, plan.prefill_chunk)
    try:
        from mobilepack.backends.onnx.export import export_onnx

        return export_onnx(model.spec, model.weights, tables, lengths, path, on_share)
    except ImportError as err:
        raise MissingError(
            "no-onnx",
            "cannot build for ONNX Runtime",
            why=f"{err.name or err} is not installed",
            next="pip install 'mobilepack[onnx]'",
        ) from err
    except (RuntimeError, ValueError, NotImplementedError, AssertionError) as err:
        raise BuildError(
            "export-failed",
            "torch.onnx could not export this model",
            why=f"{type(err).__name__}: {str(err).strip().splitlines()[0][:300]}",
            next="report the model; --target xnnpack lowers it another way",
        ) from err


def genai_config(spec: DecoderSpec, plan: BuildPlan) -> dict[str, Any]:
    """Return what ONNX Runtime GenAI reads beside a model (its `genai_config.json`, 0.5 to 0.18).

    Generation is greedy unless the app says otherwise. Heads and their size are the first layer's:
    GenAI knows one for all.
    """
    first = spec.attentions[0]
    decoder = {
        "session_options": {"provider_options": []},
        "filename": ONNX,
        "hidden_size": spec.hidden_size,
        "num_attention_heads": first.n_heads,
        "num_key_value_heads": first.n_kv_heads,
        "head_size": first.head_dim,
        "num_hidden_layers": len(spec.layers),
        "inputs": {
            "input_ids": "input_ids",
            "position_ids": "position_ids",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    ends = list(spec.eos_ids) or [0]
    return {
        "model": {
            "type": "llama",  # any decoder-only type: the graph is what counts
            "vocab_size": spec.vocab_size,
            "context_length": plan.max_seq_len,
            "bos_token_id": ends[0] if spec.bos_id is None else spec.bos_id,
            "eos_token_id": ends if len(ends) > 1 else ends[0],
            "pad_token_id": ends[0],
            "decoder": decoder,
        },
        "search": {"do_sample": False, "max_length": plan.max_seq_len},
    }


def _facts(
    model: LoadedModel, plan: BuildPlan, metadata: Mapping[str, MetadataValue], operators: int
) -> ProgramFacts:
    from mobilepack.models.growing import past_shapes

    caches = 4 * sum(math.prod(shape) for shape in past_shapes(model.spec, plan.max_seq_len))
    parameters = model.weights.parameters()
    facts = program_facts(
        metadata,
        Counts(1, operators, {}, weight_cache=False),
        {"fp32": (parameters, 4 * parameters)},
        MemoryBytes(caches, 0),
    )
    return ProgramFacts(
        metadata=facts.metadata,
        placement=facts.placement,
        weights=facts.weights,
        memory=facts.memory,
        methods=(method_of(model.spec, plan.prefill_chunk, plan.max_seq_len),),
    )


def method_of(spec: DecoderSpec, longest: int, max_seq_len: int) -> Method:
    """Return the program's one method: `longest` tokens at most in a call."""
    from mobilepack.backends.onnx.export import input_names, output_names
    from mobilepack.models.growing import past_shapes

    layers = len(spec.layers)
    ids = [("int64", (1, longest), (1,))] * 2
    caches = [("float32", shape, (2,)) for shape in past_shapes(spec, max_seq_len)]
    logits = ("float32", (1, 1, spec.vocab_size), ())
    return Method(
        name="forward",
        inputs=_specs(input_names(layers), [*ids, *caches]),
        outputs=_specs(output_names(layers), [logits, *caches]),
    )


def _specs(
    names: list[str], kinds: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=name, dtype=dtype, shape=shape, dynamic=dynamic)
        for name, (dtype, shape, dynamic) in zip(names, kinds, strict=True)
    )
